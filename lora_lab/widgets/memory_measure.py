"""A training step taken for real in a thread, beside its prediction and its trace. No widgets, and no torch yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from lora_lab.accounting.memory import Estimate, memory
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue
from lora_lab.widgets.background import Background

TOKENS = 2048  # in a batch; more takes a laptop's CPU minutes
ROOM = 1.25  # what a process takes above its tensors on a CPU: 15 to 21 % was seen


@dataclass
class StepMeasured(Background):
    """One real step on this machine's CPU, and what came of it. Written by the measuring thread, read from any.

    conditions   fields of Setup; the device is always the CPU
    """

    model: str
    name: str
    method: Any
    conditions: Mapping[str, Any]
    predicted: Estimate | None = None
    traced: Estimate | None = None
    measured: Estimate | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.conditions = {**self.conditions, "device": "cpu"}

    def describe(self) -> str:
        """What was measured, in words."""
        c = self.conditions
        kept = ", checkpointing" if c["checkpointing"] else ""
        where = f"{c['batch']} x {c['seq']} tokens, {c['dtype']}, {c['optimizer']}{kept}"
        return f"{self.name} on {self.model}, {where}, with this machine's CPU"

    def _work(self) -> None:
        """Raises: BadValue for a step that takes a student too much patience or this machine too much memory."""
        tokens = self.conditions["batch"] * self.conditions["seq"]
        if tokens > TOKENS:
            raise BadValue(
                f"a real step of {tokens:,} tokens takes a laptop's CPU minutes: lower batch or sequence to {TOKENS:,}"
            )
        predicted = memory(self.model, self.method, **self.conditions)
        wanted, free = ROOM * predicted.peak, psutil.virtual_memory().available
        if wanted > free:
            raise BadValue(
                f"that needs about {wanted / GIB:.1f} GiB here and {free / GIB:.1f} GiB are free: lower batch"
            )
        from lora_lab.training.measure import measure  # imports torch

        measured = measure(self.model, self.method, **self.conditions)
        self.traced = memory(self.model, self.method, trace=True, **self.conditions)
        self.predicted, self.measured = predicted, measured

"""Section 4.2: memory, file and speed of training, LoRA against full fine-tuning.

Memory and file by the accountant for GPT-3, as the paper states them; all three measured on a model that fits here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from lora_course.paper.reproduce.base import Interval, Item, Judged, Kept, Place, Plan, Row, all_of, part
from lora_lab.accounting.memory import memory
from lora_lab.accounting.models import config_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.trace import build, forward_backward, prepare
from lora_lab.errors import BadValue
from lora_lab.experiments.statistics import Verdict
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.training.measure import measure, optimizer_of

METHODS = {"full": FullFineTuning(), "LoRA": LoRA(rank=4)}
RATIO = "speed, LoRA over full"
BIG = "gpt3-175b"
ROUNDS, LEAST = 30, 5
PEAKS = 6  # rounds that measuring the peaks takes, about
STEP: dict[str, Any] = {"batch": 4, "seq": 64, "dtype": "fp32"}
MIB, GB = 2**20, 10**9


class Costs(Item):
    """Peaks and files of both methods, tokens a second in each round, and GPT-3's memory and file predicted."""

    def expected(self, minutes: float) -> Plan:
        steps = self._steps()
        started = time.perf_counter()
        for step in steps.values():
            step()
        a_round = time.perf_counter() - started
        rounds = min(ROUNDS, int(60 * minutes / a_round) - PEAKS)
        if rounds < LEAST:
            needed = (LEAST + PEAKS) * a_round / 60
            raise BadValue(f"{minutes:g} minutes are too few: {LEAST} rounds take about {needed:.1f}")
        return Plan({"rounds": rounds}, (rounds + PEAKS) * a_round)

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        peaks = {name: measure(self.model, one, **STEP).peak / MIB for name, one in METHODS.items()}
        files = {name: params(self.model, one).adapter_bytes / MIB for name, one in METHODS.items()}
        steps, speeds = self._steps(), {name: list[float]() for name in METHODS}
        for number in place.rounds(sizes["rounds"], LEAST):
            for name in sorted(steps, reverse=bool(number % 2)):  # in turn first
                started = time.perf_counter()
                steps[name]()
                speeds[name].append(STEP["batch"] * STEP["seq"] / (time.perf_counter() - started))
        gains = tuple(a / b for a, b in zip(speeds["LoRA"], speeds["full"], strict=True))
        predicted = {n: memory(BIG, one, batch=1, seq=2048, dtype="fp16").peak / GB for n, one in METHODS.items()}
        numbers = {name: 2 * params(BIG, one).trainable / GB for name, one in METHODS.items()}  # in fp16
        rows = [
            *(Row(f"peak of a step, {name}", (value,), "MiB") for name, value in peaks.items()),
            *(Row(f"file, {name}", (value,), "MiB") for name, value in files.items()),
            *(Row(f"speed, {name}", tuple(values), "tokens/s") for name, values in speeds.items()),
            Row(RATIO, gains, "times"),
            *(Row(f"GPT-3 memory, {name}", (value,), "GB") for name, value in predicted.items()),
            *(Row(f"GPT-3 file, {name}", (value,), "GB") for name, value in numbers.items()),
        ]
        return rows, {}

    def judge(self, kept: Kept) -> Judged:
        peak, file = (kept.rows[f"{of}, LoRA"][0] / kept.rows[f"{of}, full"][0] for of in ("peak of a step", "file"))
        speed = Interval.of(kept.rows[RATIO])
        memory = part(peak < 0.5, peak >= 0.5, f"{peak:.2f} of full's")
        size = part(file < 0.01, file >= 0.01, f"1 in {1 / file:,.0f}")
        return all_of(
            {"memory": memory, "file": size, "speed": part(speed.low > 1.1, speed.high < 1.1, f"{speed} times")}
        )

    def published(self, table: Any) -> dict[str, str]:
        speed = table.row(quantity="training speed")
        return {**super().published(table), RATIO: f"{speed['lora'] / speed['full']:.2f}"}

    def _steps(self) -> dict[str, Callable[[], None]]:
        """For each method a training step that can be repeated, taken once."""
        return {name: _warm(self.model, method) for name, method in METHODS.items()}


def _warm(name: str, method: Any) -> Callable[[], None]:
    setup = Setup(**STEP)
    model = build(config_of(name), setup)
    prepare(model, method, setup)
    optimizer = optimizer_of([p for p in model.parameters() if p.requires_grad], setup.optimizer)

    def step() -> None:
        forward_backward(model, setup)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    return step

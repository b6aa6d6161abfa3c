"""The 18 GPU runs of PEFT's MetaMathQA suite, and what the accountant predicts of them. One unknown is fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lora_lab import LoRA
from lora_lab.accounting.memory import memory
from lora_lab.files import read_json
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.prompt import PromptTuning

FILE = Path(__file__).parents[2] / "data" / "reference" / "peft_metamath.json"
FITTED = "LoRA r32"  # the run whose figure gives the length of the longest batch
FAMILY = ("LoRA r64", "LoRA r10 MLP")  # plain LoRA, predicted
LONGEST = 768  # where the suite cuts its rows
CONDITIONS: dict[str, Any] = {
    "batch": 4,
    "padded": True,
    "outputs_kept": True,  # its loop says `outputs = model(...)`, and the model caches keys and values
    "adapter_dtype": "fp32",
    "optimizer": "adamw-foreach",
}


@dataclass(frozen=True)
class Run:
    """One measured run: PEFT's configuration, numbers that train, bytes reserved at most."""

    name: str
    config: Mapping[str, Any]
    trainable: int
    reserved: int

    @property
    def method(self) -> LoRA | FullFineTuning | PromptTuning | None:
        """The lab's own method that this is, or None."""
        config = self.config
        if not config:
            return FullFineTuning()
        if config["peft_type"] == "LORA" and not config.get("use_dora"):
            roles = tuple(name.removesuffix("_proj") for name in config["target_modules"])
            return LoRA(rank=config["r"], alpha=config["lora_alpha"], targets=roles)
        if config["peft_type"] == "PROMPT_TUNING":
            return PromptTuning(tokens=config["num_virtual_tokens"], init="random")
        return None

    def error(self, said: float) -> float:
        """Percent by which a prediction in bytes is too high."""
        return 100 * (said / self.reserved - 1)


@cache
def runs() -> dict[str, Run]:
    """The measured runs by name."""
    found = (Run(r["run"], r["config"], r["trainable"], r["max_reserved"]) for r in read_json(FILE)["runs"])
    return {run.name: run for run in found}


def model() -> str:
    """The model of all runs, as the zoo names it."""
    return read_json(FILE)["model"]


def predicted(run: Run, seq: int) -> int | None:
    """The predicted peak in bytes; None for a method that the lab does not have."""
    return None if run.method is None else memory(model(), run.method, seq=seq, **CONDITIONS).peak


@cache
def length() -> int:
    """Tokens in the longest batch, padding included: what brings the prediction nearest to the first LoRA run."""
    first = runs()[FITTED]
    return min(range(64, LONGEST + 1), key=lambda seq: abs(predicted(first, seq) - first.reserved))

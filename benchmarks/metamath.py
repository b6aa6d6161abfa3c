"""The 18 GPU runs of PEFT's MetaMathQA suite, and its loop as far as memory depends on it. One unknown is fitted.

The loop is that of method_comparison/MetaMathQA/run.py in PEFT's repository, at commit 5d602fd: 20 batches at a time
run from long to short, `torch.cuda.empty_cache()` comes after every 10 steps, and the figure is the whole process's
`max_memory_reserved()`. So the longest batch meets an empty cache, beside the outputs and gradients of a short one.
"""

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
from lora_lab.methods.soft import PromptTuning

FILE = Path(__file__).parents[1] / "data" / "reference" / "peft_metamath.json"
FITTED = "LoRA r32"  # the run whose figure gives the length of the longest batch
FAMILY = ("LoRA r64", "LoRA r10 MLP", "DoRA r32")  # the others with PEFT's LoRA layers
LONGEST = 700  # tokens of the longest batch, padding included, with which the simulation meets FITTED
HISTORY = (480, 0, 200, 150, 90, 0, LONGEST)  # of other lengths only the order is known; 0 empties the cache
CUT = 768  # where the suite cuts its rows
MISSES = {  # the ranges are over drawn lengths of the batches before the longest; LoRA r32 stays within 0.4%
    "full fine-tuning": "the first step puts the optimizer's states into segments of activations: 37.8 to 39.5 GB",
    "prompt tuning": "outputs 200 tokens longer hold more of the old segments back: 24.6 to 25.3 GB",
    "prefix tuning": "evaluation, which is not simulated, makes the prefix of 50 rows in fp32 and in bf16: 3.4 GB",
}
CONDITIONS: dict[str, Any] = {
    "batch": 4,
    "padded": True,
    "outputs_kept": True,  # its loop says `outputs = model(...)`, and the model caches keys and values
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


def predicted(run: Run) -> int | None:
    """The predicted peak of live bytes in a step of the longest batch; None for a method that the lab does not have."""
    if run.method is None:
        return None
    return memory(model(), run.method, seq=LONGEST, adapter_dtype="fp32", **CONDITIONS).peak

"""The 18 GPU runs of PEFT's MetaMathQA suite, with the parts of its training loop that affect memory.

The loop is in method_comparison/MetaMathQA/run.py in PEFT's repository, at commit 5d602fd. It sorts 20 batches at a
time from long to short, calls `torch.cuda.empty_cache()` after every 10 steps, and reports `max_memory_reserved()` of
the whole process. So when the longest batch starts, the cache is empty, and the outputs and gradients of a short batch
are in memory. The length of the longest batch isn't published, so we fitted it to one run.
"""

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
FITTED = "LoRA r32"  # the length of the longest batch is fitted to this run
FAMILY = ("LoRA r64", "LoRA r10 MLP", "DoRA r32")  # the other runs with PEFT's LoRA layers
LONGEST = 700  # tokens in the longest batch with padding, fitted
HISTORY = (480, 0, 200, 150, 90, 0, LONGEST)  # only the order of the other lengths is known; 0 empties the cache
CUT = 768  # the suite truncates rows to this length
MISSES = {  # each range is over random lengths of the earlier batches, which change LoRA r32 by at most 0.4%
    "full fine-tuning": "in the first step, the optimizer's states go into segments of activations: 37.8 to 39.5 GB",
    "prompt tuning": "the outputs are 200 tokens longer and keep more old segments: 24.6 to 25.3 GB",
    "prefix tuning": "evaluation isn't simulated; it builds the prefix of 50 rows in fp32 and in bf16: 3.4 GB",
}
CONDITIONS: dict[str, Any] = {
    "batch": 4,
    "padded": True,
    "outputs_kept": True,  # the loop runs `outputs = model(...)`, so the outputs include the cached keys and values
    "optimizer": "adamw-foreach",
}


@dataclass(frozen=True)
class Run:
    """A measured run: PEFT's configuration, the number of trainable parameters, and peak reserved bytes."""

    name: str
    config: Mapping[str, Any]
    trainable: int
    reserved: int

    @property
    def method(self) -> LoRA | FullFineTuning | PromptTuning | None:
        """The lab's equivalent method, or None."""
        config = self.config
        if not config:
            return FullFineTuning()
        if config["peft_type"] == "LORA" and not config.get("use_dora"):
            roles = tuple(name.removesuffix("_proj") for name in config["target_modules"])
            return LoRA(rank=config["r"], alpha=config["lora_alpha"], targets=roles)
        if config["peft_type"] == "PROMPT_TUNING":
            return PromptTuning(tokens=config["num_virtual_tokens"], init="random")
        return None

    def error(self, predicted: float) -> float:
        """Return by how many percent a prediction in bytes is too high."""
        return 100 * (predicted / self.reserved - 1)


@cache
def runs() -> dict[str, Run]:
    """Return the measured runs by name."""
    rows = read_json(FILE)["runs"]
    return {r["run"]: Run(r["run"], r["config"], r["trainable"], r["max_reserved"]) for r in rows}


def model() -> str:
    """Return the zoo name of the model of all runs."""
    return read_json(FILE)["model"]


def predicted(run: Run) -> int | None:
    """Return the predicted peak of live bytes in a step of the longest batch, or None if the lab lacks the method."""
    if run.method is None:
        return None
    return memory(model(), run.method, seq=LONGEST, adapter_dtype="fp32", **CONDITIONS).peak

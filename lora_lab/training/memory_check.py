"""Before a run begins: does its longest batch fit in the free memory, and if not, what would?

Without memory a laptop swaps until nothing answers, or the kernel dies without a word. The accountant knows in advance,
so the run is refused in one sentence. What the accountant does not model is let through.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from lora_lab.accounting.gpus import FRAGMENTATION, PROCESS
from lora_lab.accounting.memory import largest_model, longest, most, prompt_of, quick
from lora_lab.accounting.models import Architecture, architecture_of, config_of, zoo_names
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, LabError
from lora_lab.training import device
from lora_lab.training.batches import STEP
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import TASKS, load_task

SWITCH = "LORA_LAB_NO_MEMORY_CHECK"  # set it to 1 to train all the same
CPU_GAPS = 0.25  # of the live bytes: 15 to 21 % more was measured on the bundled models
DROPOUT = 0.1  # of a base model whose own dropout is on: BERT's and GPT-2's


@dataclass(frozen=True)
class Need:
    """A run as the accountant sees it: model, what trains, conditions, and the attention that is used."""

    architecture: Architecture
    model: str
    method: Any
    setup: Setup
    labels: int
    eager: bool

    def bytes(self, **changed: Any) -> int:
        """Bytes that a step takes: the peak, gaps between tensors, and what is not imported yet.

        changed   fields of the setup, such as another batch
        """
        setup, a = replace(self.setup, **changed), self.architecture
        found = quick(self.model, self.method, setup, num_labels=self.labels)
        peak, tokens = found.peak, setup.seq + prompt_of(self.method)
        if self.eager:  # in each layer B heads S S, in fp32 and in the dtype, which a fused kernel does not keep
            peak += a.layers * setup.batch * a.heads * tokens**2 * (4 + setup.width)
        if found.mode == "bound":  # which is on the safe side already
            return peak
        if setup.device == "cuda":
            return int(peak * (1 + FRAGMENTATION))
        return int(peak * (1 + CPU_GAPS)) + max(0, PROCESS - psutil.Process().memory_info().rss)


def check_memory(recipe: Recipe, choice: device.Choice | None = None) -> None:
    """Refuse a run whose longest batch needs more memory than is free on its device.

    choice   where and how the run computes; found as the run would find it when None
    Raises: BadValue naming the batch, length or model that would fit. Nothing is raised if LORA_LAB_NO_MEMORY_CHECK
    is 1, if model or method is not modeled, or if anything else is wrong with the recipe: the run will say that.
    """
    if os.environ.get(SWITCH) == "1":
        return
    try:
        need = need_of(recipe, choice)
        needed = need.bytes()
    except LabError:
        return
    free = free_bytes(need.setup.device)
    if needed > free:
        raise BadValue(
            f"this run may need {needed / GIB:.2f} GiB and {free / GIB:.2f} GiB are free; what would fit is "
            f"{_remedies(need, free)}; or close other programs, or set {SWITCH}=1 to train all the same"
        )


def need_of(recipe: Recipe, choice: device.Choice | None = None) -> Need:
    """What the accountant needs to know of a recipe. Raises: whatever is wrong with it, or not modeled."""
    if recipe.task in TASKS:  # without reading its texts
        length, labels = recipe.max_length or TASKS[recipe.task].max_length, len(TASKS[recipe.task].labels) or None
    else:
        text, label = recipe.text_column, recipe.label_column
        task = load_task(recipe.task, max_length=recipe.max_length, text=text, label=label)
        length, labels = task.max_length, task.num_labels
    choice = choice or device.choose(length, **recipe.computed)
    a = architecture_of(recipe.model)
    if labels is not None and a.task != "encoder":
        raise BadValue("the memory of a causal classifier is not modeled")
    on_gpu = choice.device == "cuda"
    setup = Setup(
        batch=recipe.batch, seq=-(-length // STEP) * STEP, dtype=choice.dtype, optimizer="adamw-fused",
        dropout=DROPOUT * (recipe.dropout and on_gpu), quantised=choice.quantised or "none", padded=True,
        device="cuda" if on_gpu else "cpu",
    )  # fmt: skip
    # With dropout a CPU writes attention out, whatever was chosen; its masks are not modeled, so this is the least.
    eager = choice.attention == "eager" or (recipe.dropout and not on_gpu)
    return Need(a, recipe.model, recipe.method, setup, labels or 2, bool(eager))


def free_bytes(where: str) -> int:
    """Bytes that a run can still take on cuda, else on the machine."""
    if where != "cuda":
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info()
    return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())  # reserved but empty is ours


def _remedies(need: Need, free: int) -> str:
    """A smaller batch, shorter rows, or if neither helps the largest smaller model of the same kind."""
    setup, own = need.setup, need.architecture
    rows = most(lambda n: need.bytes(batch=n) <= free, setup.batch - 1)
    steps = most(lambda n: need.bytes(seq=n * STEP) <= free, (longest(config_of(need.model)) or setup.seq) // STEP)
    would = [f"batch {rows} at {setup.seq} tokens"] if rows else []
    if steps and steps * STEP < setup.seq:
        would.append(f"max_length {steps * STEP} at batch {setup.batch}")
    if not rows and not steps:
        smaller = [n for n in zoo_names() if (a := architecture_of(n)).task == own.task and a.total < own.total]
        if found := largest_model(need.method, setup, int(free / (1 + CPU_GAPS)), smaller):
            would.append(f"a smaller model such as {found}")
    return " or ".join(would) or "no model that the lab knows"

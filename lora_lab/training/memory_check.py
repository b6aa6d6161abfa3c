"""Check before training that the longest batch fits in free memory; if it doesn't, suggest what would.

Without enough memory, a laptop swaps until it hangs, or the Jupyter kernel dies silently, so a run that won't fit is
refused. Runs that the memory model doesn't cover are allowed.
"""

from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from lora_lab.accounting.gpus import FRAGMENTATION, PROCESS
from lora_lab.accounting.memory import most, quick
from lora_lab.accounting.models import Architecture, architecture_of
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, LabError, switched_on
from lora_lab.machine import memory
from lora_lab.training import device
from lora_lab.training.batches import PAD_MULTIPLE
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import TASKS, Task, task_of

SWITCH = "LORA_LAB_NO_MEMORY_CHECK"  # set it to 1 to skip the check
CPU_GAPS = 0.25  # gaps between tensors, relative to live bytes; 15 to 21% was measured on the bundled models
DROPOUT = 0.1  # the default of BERT and GPT-2


@dataclass(frozen=True)
class Need:
    architecture: Architecture
    recipe: Recipe
    setup: Setup
    eager: bool

    def bytes(self, **changed: Any) -> int:
        """Return the bytes of a step with a `changed` setup: the peak, imported libraries, and gaps between tensors."""
        setup, a, method = replace(self.setup, **changed), self.architecture, self.recipe.method
        estimate = quick(self.recipe.model, method, setup)
        peak = estimate.peak
        if self.eager:  # (B, heads, S, S) per layer, in fp32 and in the step's dtype; a fused kernel keeps neither
            peak += a.layers * setup.batch * a.heads * (setup.seq + method.added_tokens) ** 2 * (4 + setup.width)
        if estimate.mode == "bound":  # already an upper bound
            return peak
        if setup.device == "cuda":
            return int(peak * (1 + FRAGMENTATION))
        return int(peak * (1 + CPU_GAPS)) + max(0, PROCESS - psutil.Process().memory_info().rss)


def check_memory(recipe: Recipe, choice: device.Choice | None = None, task: Task | None = None) -> None:
    """Refuse a run whose longest batch needs more than the free memory of its device.

    choice   The device and dtype of the run, or by default those that `device.choose` returns.
    task     The recipe's task, if already loaded, so that its file isn't read again.
    Raises: BadValue, with the batch or length that would fit. No error is raised if LORA_LAB_NO_MEMORY_CHECK is 1, if
    the model or method is not covered, or if the recipe has another error, which the run itself reports.
    """
    if switched_on(SWITCH):
        return
    try:
        need = need_of(recipe, choice, task)
        needed = need.bytes()
    except LabError:
        return
    setup, free = need.setup, free_bytes(need.setup.device)
    if needed <= free:
        return
    rows = most(lambda n: need.bytes(batch=n) <= free, setup.batch - 1)
    steps = most(lambda n: need.bytes(seq=n * PAD_MULTIPLE) <= free, setup.seq // PAD_MULTIPLE - 1)
    options = [f"batch {rows} at {setup.seq} tokens"] if rows else []
    options += [f"max_length {steps * PAD_MULTIPLE} at batch {setup.batch}"] if steps else []
    fix = f"use {' or '.join(options)}," if options else "use a smaller model,"
    problem = f"this run may need {needed / GIB:.2f} GiB, but only {free / GIB:.2f} GiB is free"
    raise BadValue(f"{problem}; {fix} close other programs, or set {SWITCH}=1 to train anyway")


def need_of(recipe: Recipe, choice: device.Choice | None = None, task: Task | None = None) -> Need:
    """Translate a recipe to a setup for the memory model. Raises: LabError if the recipe is invalid or not covered."""
    if recipe.task in TASKS:  # the texts of a bundled task aren't needed
        length, labels = recipe.max_length or TASKS[recipe.task].max_length, len(TASKS[recipe.task].labels) or None
        rows = recipe.batch
    else:
        task = task or task_of(recipe)
        length, labels, rows = task.max_length, task.num_labels, min(recipe.batch, len(task.train))
    rows = min(rows, recipe.examples or rows)
    choice = choice or device.choose(length, **recipe.computed)
    a = architecture_of(recipe.model)
    if labels is not None and a.task != "encoder":
        raise BadValue("the memory of a causal classifier is not modeled")
    on_gpu = choice.device == "cuda"
    setup = Setup(
        batch=rows, seq=-(-length // PAD_MULTIPLE) * PAD_MULTIPLE, dtype=choice.dtype, optimizer="adamw-fused",
        dropout=DROPOUT * (recipe.dropout and on_gpu), quantized=choice.quantized or "none", padded=True,
        device="cuda" if on_gpu else "cpu", num_labels=labels or 2,
    )  # fmt: skip
    # With dropout, a CPU always uses eager attention. The dropout masks are not counted, so this is a lower bound.
    eager = choice.attention == "eager" or (recipe.dropout and not on_gpu)
    return Need(a, recipe, setup, eager)


def free_bytes(where: str) -> int:
    """Return the free memory in bytes: the GPU's if `where` is cuda, otherwise the machine's or the container's."""
    if where != "cuda":
        return memory()[1] or 0
    free, _ = torch.cuda.mem_get_info()
    return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())  # unused reserved memory is free

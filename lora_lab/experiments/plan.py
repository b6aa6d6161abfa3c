"""Group recipes that can share a base into packs, as large as memory allows and as long as speed improves."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from lora_lab.accounting.memory import trained_by
from lora_lab.errors import LabError
from lora_lab.methods.base import whole
from lora_lab.training.memory_check import free_bytes, need_of
from lora_lab.training.pack import key
from lora_lab.training.parts import cut
from lora_lab.training.recipe import Recipe

LEAST, MOST = 8, 32  # runs per pack: up to LEAST always pays off if it fits; above MOST nothing is gained
TOKENS = 2048  # per core and step; beyond that, tokens do not get cheaper
TRAINED_BYTES = 16  # per trained fp32 parameter: the parameter, its gradient, AdamW's two moments
ROOM = 0.8  # fraction of free memory that a pack may use


def packs(recipes: Sequence[Recipe], *, size: int | None = None, room: float = ROOM) -> list[list[Recipe]]:
    """Group recipes into packs of nearly equal size, at most `size` runs (None chooses automatically).

    Runs with equal targets and similar ranks go together, because smaller adapters are padded.
    """
    groups: dict[object, list[Recipe]] = {}
    for recipe in sorted(
        recipes, key=lambda r: (str(r.method.settings().get("targets")), r.method.settings().get("rank") or 0)
    ):
        groups.setdefault(key(recipe), []).append(recipe)
    result = []
    for group in groups.values():
        parts = -(-len(group) // (pack_size(group, room) if size is None else whole("size", size)))
        result += [group[len(group) * i // parts : len(group) * (i + 1) // parts] for i in range(parts)]
    return result


def pack_size(group: Sequence[Recipe], room: float = ROOM) -> int:
    """Return how many runs fit in free memory and still lower the cost per run; at least 1."""
    return max(1, min(MOST, len(group), _fitting(group, room), _worthwhile(group[0])))


def _fitting(group: Sequence[Recipe], room: float) -> int:
    """Return how many runs fit, counting activations for all rows and each run's own parameters."""
    try:
        architecture = need_of(group[0]).architecture
        trained = {method: trained_by(method, architecture) for method in {recipe.method for recipe in group}}
        largest = replace(group[0], method=max(trained, key=trained.__getitem__))
        need, run_bytes = need_of(largest), TRAINED_BYTES * trained[largest.method]
        free = room * free_bytes(need.setup.device)

        return bisect_right(
            range(1, MOST + 1), free, key=lambda runs: need.bytes(batch=runs * largest.batch) + (runs - 1) * run_bytes
        )
    except LabError:
        return 4  # without an estimate, a size that is rarely too large


def _worthwhile(recipe: Recipe) -> int:
    """Return the number of runs up to which the cost per run falls: until every core has TOKENS."""
    try:
        setup = need_of(replace(recipe, batch=1)).setup
    except LabError:
        return LEAST
    typical = recipe.batch * max(16, setup.seq // 2)  # rows are truncated to seq, and on average half as long
    return max(LEAST, ceil(TOKENS * len(cut(MOST, "cpu")) / typical)) if setup.device == "cpu" else MOST

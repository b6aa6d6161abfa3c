"""Group recipes into packs: similar enough to share a base, as many as fit in memory and still gain speed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from lora_lab.accounting.memory import trained_by
from lora_lab.errors import LabError
from lora_lab.training.memory_check import free_bytes, need_of
from lora_lab.training.pack import key
from lora_lab.training.parts import cut
from lora_lab.training.recipe import Recipe

LEAST, MOST = 8, 32  # runs per pack: up to LEAST always pays if it fits, and above MOST nothing is gained
TOKENS = 2048  # per core and step; more do not get cheaper
TRAINED_BYTES = 16  # per trained fp32 parameter: itself, its gradient, AdamW's two moments
ROOM = 0.8  # share of the free memory that a pack may take


def packs(recipes: Sequence[Recipe], *, size: int | None = None, room: float = ROOM) -> list[list[Recipe]]:
    """Group recipes into packs of nearly equal size, at most `size` runs (chosen automatically when None).

    Runs with equal targets and similar ranks go together, since differences are padded.
    """
    groups: dict[object, list[Recipe]] = {}
    for recipe in sorted(recipes, key=lambda r: (str(r.method.settings().get("targets")), _rank(r))):
        groups.setdefault(key(recipe), []).append(recipe)
    found = []
    for group in groups.values():
        parts = -(-len(group) // (size or pack_size(group, room)))
        found += [group[len(group) * i // parts : len(group) * (i + 1) // parts] for i in range(parts)]
    return found


def pack_size(group: Sequence[Recipe], room: float = ROOM) -> int:
    """Return how many runs fit in free memory and still make each step cheaper; at least one."""
    return max(1, min(MOST, len(group), _fitting(group, room), _rewarding(group[0])))


def _rank(recipe: Recipe) -> int:
    return recipe.method.settings().get("rank") or 0


def _fitting(group: Sequence[Recipe], room: float) -> int:
    """Return how many runs fit: activations for all their rows, and each run's own parameters."""
    try:
        architecture = need_of(group[0]).architecture
        trained = {method: trained_by(method, architecture) for method in {recipe.method for recipe in group}}
        largest = replace(group[0], method=max(trained, key=trained.__getitem__))
        need, own = need_of(largest), TRAINED_BYTES * trained[largest.method]
        free = room * free_bytes(need.setup.device)

        def bytes_of(runs: int) -> int:
            return need.bytes(batch=runs * largest.batch) + (runs - 1) * own

        return bisect_right(range(1, MOST + 1), free, key=bytes_of)  # the most runs that fit
    except LabError:
        return 4  # without an estimate, a size that rarely does harm


def _rewarding(recipe: Recipe) -> int:
    """Return up to how many runs a step gets cheaper per run: until every core has TOKENS."""
    try:
        setup = need_of(replace(recipe, batch=1)).setup
    except LabError:
        return LEAST
    typical = recipe.batch * max(16, setup.seq // 2)  # rows are cut to seq, and half as long on average
    wanted = TOKENS * len(cut(MOST, "cpu")) if setup.device == "cpu" else MOST * typical
    return max(LEAST, -(-wanted // typical))

"""Which recipes train side by side: alike enough to share a base, as many as the memory holds and the speed rewards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from lora_lab.accounting.memory import most, trained_by
from lora_lab.errors import LabError
from lora_lab.training.memory_check import free_bytes, need_of
from lora_lab.training.pack import key
from lora_lab.training.parts import cut
from lora_lab.training.recipe import Recipe

LEAST, MOST = 8, 32  # lanes that are worth while wherever they fit, and beyond which nothing more is saved
TOKENS = 2048  # of a core's part of a step: with more of them each is no cheaper
TRAINED_BYTES = 16  # of a number that trains in fp32: itself, its gradient, AdamW's two moments
ROOM = 0.8  # share of the free memory that a pack may take


def packs(recipes: Sequence[Recipe], *, size: int | None = None, room: float = ROOM) -> list[list[Recipe]]:
    """The recipes in groups that train side by side, in their own order; `size` lanes at most, found when None.

    room    share of the free memory that a pack may take
    """
    groups: dict[object, list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(key(recipe), []).append(recipe)
    return [part for group in groups.values() for part in _cut(_alike(group), size or pack_size(group, room))]


def pack_size(group: Sequence[Recipe], room: float = ROOM) -> int:
    """Lanes that fit the free memory and that are still worth adding; at least one."""
    return max(1, min(MOST, len(group), _fitting(group, room), _rewarding(group[0])))


def _alike(group: Iterable[Recipe]) -> list[Recipe]:
    """Lanes that adapt the same layers at like ranks stand together: the others' places would be padding."""
    return sorted(group, key=lambda r: (str(r.method.settings().get("targets")), r.method.settings().get("rank") or 0))


def _cut(group: list[Recipe], size: int) -> list[list[Recipe]]:
    """As few parts as needed, nearly equal ones."""
    number = -(-len(group) // size)
    return [group[len(group) * i // number : len(group) * (i + 1) // number] for i in range(number)]


def _fitting(group: Sequence[Recipe], room: float) -> int:
    """Lanes whose step fits: activations as of so many times the rows, and each lane's own numbers."""
    largest = max(group, key=lambda recipe: recipe.method.settings().get("rank") or 0)
    try:
        need = need_of(largest)
        own = TRAINED_BYTES * trained_by(largest.method, need.architecture)
        free = room * free_bytes(need.setup.device)
        return most(lambda k: need.bytes(batch=k * largest.batch) + (k - 1) * own <= free, MOST) or 1
    except LabError:
        return 4  # no estimate: a pack of a size that rarely does harm


def _rewarding(recipe: Recipe) -> int:
    """Lanes up to which a step gets cheaper for each of them: so many that every core has TOKENS of it."""
    try:
        need = need_of(replace(recipe, batch=1))
    except LabError:
        return LEAST
    typical = max(16, need.setup.seq // 2)  # rows are cut to seq, and on average half as long
    wanted = TOKENS * len(cut(MOST, "cpu")) if need.setup.device == "cpu" else MOST * recipe.batch * typical
    return max(LEAST, -(-wanted // (recipe.batch * typical)))

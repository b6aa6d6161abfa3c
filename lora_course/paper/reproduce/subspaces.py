"""What table 7 and figures 3 and 4 look at: the updates of LoRA runs of three ranks, shared by the three items.

OUT/subspaces/runs        rank 4, 8 and 64 on q and v, several seeds: trained once, looked at three times
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import ClassVar

from lora_course.experiments.updates import Update, updates_of
from lora_course.paper.reproduce.base import Place, Plan
from lora_course.paper.reproduce.trained import Trained
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA

RANKS = (4, 8, 64)
PARTS = {"q": ("query", "q_proj"), "v": ("value", "v_proj")}  # how a role's layers are called
Updates = Mapping[str, list[dict[str, Update]]]  # "rank 8": by seed, by layer's name
TOO_FEW = 4  # seeds below which nothing is decided: three that agree are luck in one of four cases


class Subspaces(Trained):
    """A subclass looks at `Updates`, in `rows` and `judge`; the runs are those of all such items."""

    store: ClassVar[str] = "subspaces"
    minutes = 20.0
    enough = 40
    methods: ClassVar[Mapping[str, Method]] = {f"rank {r}": LoRA(rank=r) for r in RANKS}

    def run(self, plan: Plan, place: Place) -> Updates:  # type: ignore[override]  # what is looked at are the updates
        runs = super().run(plan, place)
        return {name: [updates_of(one) for one in own] for name, own in runs.items()}


def over_layers(found: Mapping[str, Update], role: str, value: Callable[[str], float]) -> float:
    """The mean of a value of each layer's q or v, by the layer's name."""
    return fmean(value(name) for name in found if name.endswith(PARTS[role]))

"""Table 7: how much an update amplifies what the weight already had in its directions.

||dW||_F / ||U^T W V||_F        U, V: the r strongest directions of dW; of W itself, and of chance, for comparison
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lora_course.experiments.subspace import amplification
from lora_course.experiments.updates import Update
from lora_course.paper.reproduce.base import Judged, Kept, Row, all_of, in_every
from lora_course.paper.reproduce.subspaces import TOO_FEW, Subspaces, Updates, over_layers
from lora_course.paper.reproduce.trained import SEEN

RANKS = (4, 64)
SHOWN = {
    "norm_dW": ("||dW||", "update"),
    "UWV_of_dW": ("||U'WV|| of dW", "in_update"),
    "UWV_of_W": ("||U'WV|| of W", "in_weight"),
    "UWV_of_random": ("||U'WV|| by chance", "in_random"),
    "amplification": ("amplification", "factor"),
}
Measured = Mapping[int, list[dict[str, float]]]  # by rank: of each seed, by what


class Amplified(Subspaces):
    name = "table7"
    title = "What an update amplifies: Wq of minilm, LoRA of rank 4 and 64 on rt"
    finding = (
        "An update amplifies directions that W has more of than of random ones, and less of than of its strongest."
    )
    rule = (
        f"Tested if {SEEN}. In a seed, by means over the layers' Wq, at rank 4 and at rank 64: ||U'WV|| of dW is above "
        "that by chance and below that of W; and the amplification, ||dW|| over ||U'WV|| of dW, is above 1. Holds if "
        f"both are true in every one of at least {TOO_FEW} seeds, fails if one is true in none, else undecided."
    )
    limits = (
        "Six layers of width 384 in place of layer 48 of 96 of width 12,288: a random direction finds (12,288 / 384) = "
        "32 times as much of W by chance here. That rank 4 amplifies more than rank 64 is not judged: random ones do "
        "too, and more than the update's own, for there is less of W in them."
    )
    axis = "Frobenius norm, or its ratio"

    def rows(self, found: Updates) -> list[Row]:  # type: ignore[override]
        measured = amplified(found)
        return [
            Row(f"rank {rank}, {words}", tuple(seed[name] for seed in seeds), self.axis)
            for rank, seeds in measured.items()
            for words, name in SHOWN.values()
        ]

    def judge(self, kept: Kept) -> Judged:
        of = {r: {n: np.array(kept.rows[f"rank {r}, {words}"]) for words, n in SHOWN.values()} for r in RANKS}
        between = [(one["in_random"] < one["in_update"]) & (one["in_update"] < one["in_weight"]) for one in of.values()]
        factors = ", ".join(
            f"{one['factor'].mean():.2g} at rank {r} (by chance {(one['update'] / one['in_random']).mean():.2g})"
            for r, one in of.items()
        )
        found = in_every(list(np.all(between, 0)), TOO_FEW, "between chance and W's own strongest")
        larger = in_every(
            list(np.all([one["factor"] > 1 for one in of.values()], 0)), TOO_FEW, f"{factors}, above 1 at both"
        )
        return all_of({"||U'WV||": found, "amplification": larger})

    def published(self, table: Any) -> Mapping[str, str]:
        return {f"rank {r}, {words}": f"{table.row(rank=r)[c]:g}" for r in RANKS for c, (words, _) in SHOWN.items()}


def amplified(found: Updates) -> Measured:
    """By rank and seed: each of `SHOWN`, the mean over the layers' Wq."""
    return {rank: [_means(seed, rank) for seed in found[f"rank {rank}"]] for rank in RANKS}


def _means(seed: Mapping[str, Update], rank: int) -> dict[str, float]:
    each = {name: amplification(update.weight, update.factors, rank) for name, update in seed.items()}

    def mean(what: str) -> float:
        return over_layers(seed, "q", lambda layer: float(getattr(each[layer], what)))

    return {what: mean(what) for _, what in SHOWN.values()}


ITEM = Amplified()

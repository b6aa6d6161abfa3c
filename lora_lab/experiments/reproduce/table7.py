"""Table 7: how much an update amplifies what the weight already had in its directions.

||dW||_F / ||U^T W V||_F        U, V: the r strongest directions of dW; of W itself, and of chance, for comparison
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lora_lab.experiments.reproduce.base import Judged, Row, in_every
from lora_lab.experiments.reproduce.subspaces import TOO_FEW, Subspaces, Updates, over_layers
from lora_lab.experiments.subspace import Amplification, amplification
from lora_lab.experiments.updates import Update

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
    finding = "An update amplifies directions that the weight has but does not favour, and a low rank does so more."
    rule = (
        "In a seed, by means over the layers' Wq: W has more in dW's directions than in random ones and less than in "
        "its own strongest, at both ranks, and the amplification at rank 4 is above that at rank 64. Holds if it is "
        f"so in every one of at least {TOO_FEW} seeds, fails if it is so in none, else undecided."
    )
    limits = (
        "Six layers of width 384 in place of layer 48 of 96 of width 12,288: a random direction finds (12,288 / 384) = "
        "32 times as much of W by chance here, and amplification is that much less pure."
    )
    axis = "Frobenius norm, or its ratio"

    def rows(self, found: Updates) -> list[Row]:  # type: ignore[override]
        measured = amplified(found)
        return [
            Row(f"rank {rank}, {words}", tuple(seed[name] for seed in seeds), self.axis)
            for rank, seeds in measured.items()
            for words, name in SHOWN.values()
        ]

    def judge(self, found: Updates) -> Judged:  # type: ignore[override]
        return judged(amplified(found))

    def published(self, table: Any) -> Mapping[str, str]:
        return {f"rank {r}, {words}": f"{table.row(rank=r)[c]:g}" for r in RANKS for c, (words, _) in SHOWN.items()}


def amplified(found: Updates) -> Measured:
    """By rank and seed: each of `SHOWN`, the mean over the layers' Wq."""

    return {rank: [_means(seed, rank) for seed in found[f"rank {rank}"]] for rank in RANKS}


def _means(seed: Mapping[str, Update], rank: int) -> dict[str, float]:
    each = {name: amplification(update.weight, update.factors, rank) for name, update in seed.items()}
    return {what: over_layers(seed, "q", _of(each, what)) for _, what in SHOWN.values()}


def _of(each: Mapping[str, Amplification], what: str) -> Callable[[str], float]:
    return lambda layer: float(getattr(each[layer], what))


def judged(measured: Measured) -> Judged:
    """The rule."""
    pairs = list(zip(measured[4], measured[64], strict=True))
    between = [all(s["in_random"] < s["in_update"] < s["in_weight"] for s in pair) for pair in pairs]
    more = [low["factor"] > high["factor"] for low, high in pairs]
    words = "between chance and W's own strongest, and amplified more at rank 4 than at 64"
    return in_every([a and b for a, b in zip(between, more, strict=True)], TOO_FEW, words)


ITEM = Amplified()

"""Figure 4: do two seeds of rank 64 find the same directions?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lora_lab.experiments.reproduce.base import Judged, Row, in_every
from lora_lab.experiments.reproduce.fig3 import RANDOM, Measured, chance, rows_of, shared
from lora_lab.experiments.reproduce.subspaces import TOO_FEW, Subspaces, Updates

CELLS = ((1, 1), (8, 8), (16, 16))


class BetweenSeeds(Subspaces):
    name = "fig4"
    title = "Directions shared by two seeds at rank 64: q and v of minilm on rt"
    finding = "Two seeds share directions, more of them in Wq than in Wv; random matrices share none."
    rule = (
        "In a pair of seeds, by phi(8, 8) of the row spaces of B A less chance, mean over layers: it is above 0 for "
        f"v, and larger for q than for v. Holds if it is so in every one of at least {TOO_FEW} pairs, fails if it is "
        "so in none, else undecided."
    )
    limits = (
        "Width 384 in place of 12,288, where chance gives more, and is taken off; two classes in place of GPT-3's "
        "tasks. Pairs are seed and next seed, so a seed is in two of them: the pairs are not quite independent."
    )
    axis = "phi less chance (0 is chance)"
    line = 0.0

    def rows(self, found: Updates) -> list[Row]:  # type: ignore[override]
        measured = shared(found["rank 64"], found["rank 64"], CELLS)
        return [*rows_of(measured, self.axis), chance(found, self.axis)]

    def judge(self, found: Updates) -> Judged:  # type: ignore[override]
        return judged(shared(found["rank 64"], found["rank 64"], CELLS))

    def published(self, table: Any) -> Mapping[str, str]:
        said = {role: table.row(weights=f"W{role}")["shared"] for role in "qv"}
        random = {RANDOM: table.row(weights="random Gaussian")["shared"]}
        return {f"A of {role}, phi(8, 8)": words for role, words in said.items()} | random


def judged(measured: Measured) -> Judged:
    """The rule."""
    q, v = (np.array(measured["BA", role, (8, 8)]) for role in "qv")
    return in_every([bool(b) for b in (v > 0) & (q > v)], TOO_FEW, "phi(8, 8) above chance for v, and more for q")


ITEM = BetweenSeeds()

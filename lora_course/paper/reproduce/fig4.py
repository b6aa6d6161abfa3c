"""Figure 4: do two seeds of rank 64 find the same directions?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lora_course.paper.reproduce.base import Judged, Kept, Row, in_every
from lora_course.paper.reproduce.fig3 import RANDOM, chance, rows_of, shared
from lora_course.paper.reproduce.subspaces import TOO_FEW, Subspaces, Updates
from lora_course.paper.reproduce.trained import SEEN

CELLS = ((1, 1), (8, 8), (16, 16))


class BetweenSeeds(Subspaces):
    name = "fig4"
    title = "Directions shared by two seeds at rank 64: q and v of minilm on rt"
    finding = "Two seeds share more directions than random matrices do, and more of them in Wq than in Wv."
    rule = (
        f"Tested if {SEEN}. In a pair of seeds, by phi(8, 8) of the row spaces of B A minus chance, mean over layers: "
        f"it is above 0 for v, and larger for q than for v. Holds if this is true in every one of at least {TOO_FEW} "
        "pairs, fails if it is true in none, else undecided. The pairs (0-1, 1-2, ..., 4-0) share seeds: five that "
        "agree are weaker evidence than five independent ones."
    )
    limits = (
        "Width 384 in place of 12,288, where chance gives more, and is taken off; two classes in place of GPT-3's "
        "tasks."
    )
    axis = "phi minus chance (0 is chance)"
    line = 0.0

    def rows(self, found: Updates) -> list[Row]:  # type: ignore[override]
        measured = shared(found["rank 64"], found["rank 64"], CELLS)
        return [*rows_of(measured, self.axis), chance(found, self.axis)]

    def judge(self, kept: Kept) -> Judged:
        q, v = (np.array(kept.rows[f"BA of {role}, phi(8, 8)"]) for role in "qv")
        so = list((v > 0) & (q > v))
        return in_every(so, TOO_FEW, "phi(8, 8) above chance for v and larger for q, in pairs that share seeds")

    def published(self, table: Any) -> Mapping[str, str]:
        said = {role: table.row(weights=f"W{role}")["shared"] for role in "qv"}
        random = {RANDOM: table.row(weights="random Gaussian")["shared"]}
        return {f"A of {role}, phi(8, 8)": words for role, words in said.items()} | random


ITEM = BetweenSeeds()

"""Table 6: how low may the rank be?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lora_course.paper.reproduce.base import Pairs
from lora_course.paper.reproduce.table5 import in_paper, lora, name_of, scores_in_paper
from lora_course.paper.reproduce.trained import LEARNED, Trained
from lora_lab.methods.base import Method

RANKS = (1, 2, 4, 8, 64)
TARGETS = ("q", "q,v", "q,k,v,o")


class HowLow(Trained):
    name = "table6"
    title = "Rank 1 to 64 on three sets of matrices: LoRA on minilm, on rt"
    finding = "Rank 1 is as good as rank 64, or better, on q and v and on all four matrices."
    rule = (
        f"Tested if {LEARNED}. Rank 1 against rank 64 on q,v and on q,k,v,o: holds if equivalent or better on both "
        "(margin 1.5 points, Holm over the two), fails if worse by more than the margin on either (the whole 95 % "
        "interval), else undecided."
    )
    minutes = 38.0
    limits = (
        "MiniLM (width 384: rank 64 is a sixth of all there is, in GPT-3 a 192nd) and two classes of film reviews, "
        "which may need less rank than most tasks; alpha 16 and one rate for all ranks, as the paper keeps its own."
    )
    methods: ClassVar[Mapping[str, Method]] = {name_of(t, r): lora(t, r) for t in TARGETS for r in RANKS}
    pairs: ClassVar[Pairs] = {
        f"{t}, rank 1 against 64": (name_of(t, 1), name_of(t, 64), "no worse") for t in TARGETS[1:]
    }

    def published(self, table: Any) -> Mapping[str, str]:
        rows = {name_of(t, r): table.row(weights=in_paper(t), rank=r) for t in TARGETS for r in RANKS}
        return {name: scores_in_paper(row) for name, row in rows.items()}


ITEM = HowLow()

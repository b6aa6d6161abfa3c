"""Table 6: how low may the rank be?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lora_lab.experiments.reproduce.base import Judged, by_verdicts
from lora_lab.experiments.reproduce.table5 import in_paper, lora, name_of, scores_in_paper
from lora_lab.experiments.reproduce.trained import Scores, Trained
from lora_lab.experiments.statistics import verdicts_of
from lora_lab.methods.base import Method

RANKS = (1, 2, 4, 8, 64)
TARGETS = ("q", "q,v", "q,k,v,o")


class HowLow(Trained):
    name = "table6"
    title = "Rank 1 to 64 on three sets of matrices: LoRA on minilm, on rt"
    finding = "A very low rank is enough: on q and v, and on all four, rank 1 does as well as rank 64."
    rule = (
        "Rank 1 against rank 64 on q,v and on q,k,v,o: holds if equivalent or better on both (margin 1.5 points, Holm "
        "over the two), fails if worse on either, else undecided."
    )
    minutes = 38.0
    limits = (
        "MiniLM (width 384: rank 64 is a sixth of all there is, in GPT-3 a 192nd) and two classes of film reviews, "
        "which may need less rank than most tasks; alpha 16 and one rate for all ranks, as the paper keeps its own."
    )
    methods: ClassVar[Mapping[str, Method]] = {name_of(t, r): lora(t, r) for t in TARGETS for r in RANKS}

    def verdict(self, scores: Scores) -> Judged:
        pairs = {f"{t}, rank 1 against 64": (scores[name_of(t, 1)], scores[name_of(t, 64)]) for t in TARGETS[1:]}
        return by_verdicts(verdicts_of(pairs), hoped=("better", "equivalent"), refuted=("worse",))

    def published(self, table: Any) -> Mapping[str, str]:
        rows = {name_of(t, r): table.row(weights=in_paper(t), rank=r) for t in TARGETS for r in RANKS}
        return {name: scores_in_paper(row) for name, row in rows.items()}


ITEM = HowLow()

"""Table 5: one budget of parameters, on which matrices?

one matrix at rank 8  =  two at rank 4  =  all four at rank 2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lora_course.paper.reproduce.base import Pairs
from lora_course.paper.reproduce.trained import LEARNED, Trained
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA

CELLS = {"q": 8, "k": 8, "v": 8, "o": 8, "q,k": 4, "q,v": 4, "q,k,v,o": 2}  # targets and rank


def name_of(targets: str, rank: int) -> str:
    """As a row is called: "q,v r4"."""
    return f"{targets} r{rank}"


def lora(targets: str, rank: int) -> LoRA:
    """LoRA on "q,v" at a rank, alpha 16."""
    return LoRA(rank=rank, targets=tuple(targets.split(",")))


def in_paper(targets: str) -> str:
    """Targets as the paper names its matrices: "q,v" is "Wq,Wv"."""
    return ",".join(f"W{role}" for role in targets.split(","))


class WhichMatrices(Trained):
    name = "table5"
    title = "Which matrices at one budget: LoRA on minilm's attention, on rt"
    finding = "At one budget of parameters, q and v together at rank 4 do better than q alone or k alone at rank 8."
    rule = (
        f"Tested if {LEARNED}. q,v at rank 4 against q alone and against k alone at rank 8, on the same test rows: "
        "holds if better than both, fails if worse than either by more than the margin (1.5 points, the whole 95 % "
        "interval, Holm over the two), else undecided."
    )
    minutes = 28.0
    limits = (
        "MiniLM (22.7 M parameters) and rt in place of GPT-3 and WikiSQL or MNLI; one rate for all rows, as in the "
        "paper, and alpha 16 (its alpha for GPT-3 is not printed), so alpha / r is 4 for q,v and 2 for one matrix. "
        "v alone and o alone are shown, not judged: that q and v together are the best choice is no part of the "
        "finding here."
    )
    methods: ClassVar[Mapping[str, Method]] = {name_of(t, r): lora(t, r) for t, r in CELLS.items()}
    pairs: ClassVar[Pairs] = {f"q,v r4 against {one}": ("q,v r4", one, "better") for one in ("q r8", "k r8")}

    def published(self, table: Any) -> Mapping[str, str]:
        return {name_of(t, r): scores_in_paper(table.row(weights=in_paper(t), rank=r)) for t, r in CELLS.items()}


def scores_in_paper(row: Mapping[str, Any]) -> str:
    """A row's two figures: "WikiSQL 73.7, MNLI 91.3"."""
    return f"WikiSQL {row['WikiSQL']}, MNLI {row['MNLI']}"


ITEM = WhichMatrices()

"""Table 18: the loss of a language model against the rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lora_course.paper.reproduce.base import Pairs
from lora_course.paper.reproduce.trained import SEEN, Trained
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA
from lora_lab.training.runs import Run

RANKS = (1, 4, 16, 64)


class RankAndLoss(Trained):
    name = "table18"
    title = "Loss against rank: smollm2 learns to say meanings of restaurants"
    finding = "The loss falls from rank 1 to rank 16, and is flat from 16 to 64."
    rule = (
        f"Tested if {SEEN}. By the loss of each test sentence (margin 0.015 nats a token, Holm over the two): holds if "
        "rank 16 is better than rank 1 and rank 64 equivalent to 16, fails if rank 16 is worse than 1, or 64 apart "
        "from 16, by more than the margin (the whole 95 % interval), else undecided."
    )
    minutes = 28.0
    limits = (
        "SmolLM2 and a grammar's sentences in place of GPT-2 medium and E2E. alpha 32 and one rate for all ranks, as "
        "the paper tuned at one rank only: a test of the paper's protocol, not of each rank at a rate of its own."
    )
    enough, most = 30, 1523  # the most is one pass
    axis = "test loss (nats a token)"
    methods: ClassVar[Mapping[str, Method]] = {f"rank {r}": LoRA(rank=r, alpha=32) for r in RANKS}
    pairs: ClassVar[Pairs] = {
        "rank 16 against 1": ("rank 16", "rank 1", "better"),
        "rank 64 against 16": ("rank 64", "rank 16", "equal"),
    }

    def __init__(self, model: str = "smollm2", task: str = "restaurants", lr: float = 1e-3, **fields: Any) -> None:
        super().__init__(model, task, lr, **{"batch": 4, **fields})

    def figure(self, run: Run) -> float:
        return run.metrics["loss"]

    def published(self, table: Any) -> Mapping[str, str]:
        return {f"rank {r}": f"{table.row(rank=r)['val_loss']} on E2E" for r in RANKS}

    def others(self, table: Any) -> Mapping[str, str]:
        return {"rank 4": f"BLEU {table.expected['BLEU']}"}


ITEM = RankAndLoss()

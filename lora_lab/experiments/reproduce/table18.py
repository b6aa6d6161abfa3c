"""Table 18: the loss of a language model against the rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lora_lab.experiments.reproduce.base import Judged
from lora_lab.experiments.reproduce.trained import Scores, Trained
from lora_lab.experiments.statistics import verdicts_of
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA
from lora_lab.training.runs import Run

RANKS = (1, 4, 16, 64)
FLAT = "rank 64 against 16"
FALLS = "rank 16 against 1"


class RankAndLoss(Trained):
    name = "table18"
    title = "Loss against rank: smollm2 learns to say meanings of restaurants"
    finding = "The loss falls up to a rank of about 16, and is flat beyond."
    rule = (
        "By the loss of each test sentence (margin 0.015 nats a token, Holm over the two): holds if rank 16 is better "
        "than rank 1 and rank 64 equivalent to 16, fails if rank 16 is worse than or equivalent to 1, or 64 better "
        "than or worse than 16, else undecided."
    )
    minutes = 28.0
    limits = (
        "SmolLM2 and a grammar's sentences in place of GPT-2 medium and E2E, some tens of steps in place of 26,000: a "
        "rank is not filled in so few. alpha 32 and one rate for all ranks, as the paper tuned at one rank only."
    )
    enough = 30
    axis = "test loss (nats a token)"
    methods: ClassVar[Mapping[str, Method]] = {f"rank {r}": LoRA(rank=r, alpha=32) for r in RANKS}

    def __init__(self, model: str = "smollm2", task: str = "restaurants", lr: float = 1e-3, **fields: Any) -> None:
        super().__init__(model, task, lr, **{"batch": 4, **fields})

    def verdict(self, scores: Scores) -> Judged:
        pairs = {FALLS: ("rank 16", "rank 1"), FLAT: ("rank 64", "rank 16")}
        found = verdicts_of({name: (scores[a], scores[b]) for name, (a, b) in pairs.items()})
        falls, flat = found[FALLS].outcome, found[FLAT].outcome
        words = "; ".join(f"{name}: {one}" for name, one in found.items())
        if falls in ("worse", "equivalent") or flat in ("better", "worse"):
            return Judged("fails", words)
        return Judged("holds" if (falls, flat) == ("better", "equivalent") else "undecided", words)

    def figure(self, run: Run) -> float:
        return run.metrics["loss"]

    def published(self, table: Any) -> Mapping[str, str]:
        return {f"rank {r}": f"{table.row(rank=r)['val_loss']} on E2E" for r in RANKS}

    def others(self, table: Any) -> Mapping[str, str]:
        return {"rank 4": f"BLEU {table.expected['BLEU']}"}


ITEM = RankAndLoss()

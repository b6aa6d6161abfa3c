"""Table 2: LoRA against full fine-tuning, bottlenecks, biases and the head alone, on sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_lab.experiments.reproduce.base import Judged, by_verdicts
from lora_lab.experiments.reproduce.compared import Compared
from lora_lab.experiments.reproduce.trained import Scores
from lora_lab.experiments.statistics import verdict

IN_PAPER = {"full": "FT", "bitfit": "BitFit", "LoRA r8 q,v": "LoRA"}  # rows of RoBERTa-base, by our labels


class Methods(Compared):
    name = "table2"
    title = "Methods at their own tuned rates: minilm on rt"
    finding = "LoRA is on a par with full fine-tuning, with a small part of its parameters."
    rule = (
        "LoRA (rank 8 on q and v) against full fine-tuning on the same test rows: holds if equivalent or better "
        "(margin 1.5 points), fails if worse, else undecided."
    )
    minutes = 38.0
    limits = (
        "One task of film reviews in place of eight of GLUE, MiniLM in place of RoBERTa; SST-2 comes from the same "
        "corpus as rt. The head of all methods trains and is in none of the counts, as in the paper."
    )
    methods = "full,bitfit,bottleneck,lora,head"
    model, task = "minilm", "rt"

    def verdict(self, scores: Scores) -> Judged:
        found = {"LoRA against full": verdict(scores["lora"], scores["full"])}
        return by_verdicts(found, hoped=("better", "equivalent"), refuted=("worse",))

    def published(self, table: Any) -> Mapping[str, str]:
        rows = {name: table.row(model="RoBERTa-base", method=method) for name, method in IN_PAPER.items()}
        return {name: f"SST-2 {row['SST-2']} ({row['trainable']})" for name, row in rows.items()}


ITEM = Methods()

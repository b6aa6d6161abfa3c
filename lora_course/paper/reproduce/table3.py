"""Table 3: a language model says restaurants' meanings in sentences; methods by what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lora_course.paper.reproduce.base import Pairs, Row
from lora_course.paper.reproduce.compared import Compared
from lora_course.paper.reproduce.trained import SEEN, marks
from lora_lab.experiments.compare import Comparison

SHOWN = {"bleu": ("BLEU", 1), "nist": ("NIST", 1), "rouge_l": ("ROUGE-L", 1), "slot_errors": ("slot errors (%)", 100)}
COLUMNS = ("BLEU", "NIST", "ROUGE-L")
IN_PAPER = {"full": "FT", "lora": "LoRA", "prefix": "PreLayer"}


class Writing(Compared):
    name = "table3"
    title = "Meanings of restaurants said in sentences: smollm2, what it writes"
    finding = "By the loss of test sentences, LoRA is as good as full fine-tuning or better, and better than prefixes."
    rule = (
        f"Tested if {SEEN}. By the loss of each test sentence, which every run scores once (margin 0.015 nats a token, "
        "Holm over the two): holds if LoRA is equivalent to or better than full fine-tuning and better than prefix "
        "tuning, fails if it is worse than either by more than the margin (the whole 95 % interval), else undecided. "
        "BLEU, NIST, ROUGE-L and slot errors are shown, not judged: a score of one whole text has no rows to compare."
    )
    minutes = 40.0
    limits = (
        "SmolLM2 (135 M) and a grammar's regular sentences in place of GPT-2 and E2E: before a pass over the data this "
        "compares how fast methods learn, not how good they get. Greedy decoding, no beams; METEOR and CIDEr "
        "are not computed."
    )
    axis = "score"
    enough, most = 25, 1523  # the most is one pass
    methods = "full,lora:rank=4:alpha=32,prefix"
    model, task, batch, prompts = "smollm2", "restaurants", 4, 24
    pairs: ClassVar[Pairs] = {
        "LoRA against full": ("lora", "full", "no worse"),
        "LoRA against prefix": ("lora", "prefix", "better"),
    }

    def rows(self, found: Comparison) -> list[Row]:
        return [
            Row(f"{words}, {one.method.name}", tuple(times * v for v in one.values(name)), words, marks(one.runs))
            for name, (words, times) in SHOWN.items()
            for one in found.results
        ]

    def published(self, table: Any) -> Mapping[str, str]:
        rows = {name: table.row(model="GPT-2 M", method=method) for name, method in IN_PAPER.items()}
        return {f"{column}, {name}": f"{row[column]}" for name, row in rows.items() for column in COLUMNS}

    def others(self, table: Any) -> Mapping[str, str]:
        return {f"{column}, lora": table.expected[column] for column in COLUMNS}


ITEM = Writing()

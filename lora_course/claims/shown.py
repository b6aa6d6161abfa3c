"""The verdicts on all claims as a page, docs/claims.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from lora_course.claims.cards import MARKS, Verdict, judge_all


def listing(verdicts: Mapping[str, Verdict]) -> str:
    """The claims with their verdicts as Markdown, without figures that another machine would measure otherwise."""
    rows = [
        f"| {v.card.number} | {v.card.statement} | {MARKS[v.word]} {v.words} | {v.card.limits} | `{name}` |"
        for name, v in verdicts.items()
    ]
    head = ["| | claim | verdict | what it does not show | id |", "|---|---|---|---|---|"]
    return "\n".join([INTRODUCTION, *head, *rows, ""])


INTRODUCTION = """# What people say about LoRA, and what the machine finds

Each claim is a card in `data/claims`: who says it, what must be found if it is right, the numbers it rests on. The
verdicts below are not in the cards; experiments on the cards' premises computed them. Change a premise and the verdict
may turn:

    lora-lab claims one_24gb_card --set gpu_gb=48

**true**: it held in every case that was tried. **false**: it failed in every case; or, where it is made for all cases
alike, in at least one. **depends**: it held in some and failed in others; the setting that makes the difference is
named. **undecided**: the evidence here cannot tell; the command says what could. Lesson 15 is about these cards.

This page is written by `python -m lora_course.claims.shown docs/claims.md`.
"""


def main(file: str) -> None:
    """Write the page."""
    Path(file).write_text(listing(judge_all()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

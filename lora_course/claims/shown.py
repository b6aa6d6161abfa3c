"""Verdicts on claims as they are read: a card for a notebook, a list for a page. Everything in them is text."""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lora_course.claims.claim_tests import said

if TYPE_CHECKING:
    from lora_course.claims.cards import Verdict

MARKS: Mapping[str, str] = {"true": "✓", "false": "✗", "depends": "◐", "undecided": "?"}  # not by colour alone


def card_html(verdict: Verdict) -> str:
    """A card with its verdict."""
    one, e = verdict.card, html.escape
    premises = "; ".join(f"{name} = {said(value)}" for name, value in verdict.premises.items())
    lines = {
        "Predicts": one.prediction,
        "Premises": premises,
        "Found": verdict.because,
        "Would decide": verdict.would_tell,
        "Evidence": "; ".join(verdict.evidence),
        "Not shown": one.limits,
    }
    rows = "".join(f"<div><b>{name}:</b> {e(text)}</div>" for name, text in lines.items() if text)
    head = f"<div>Claim {e(one.number)}, {e(one.said_by)}: <b>“{e(one.statement)}”</b></div>"
    word = f"<div style='font-size:120%'><b>{MARKS[verdict.word]} {e(verdict.words)}</b></div>"
    box = "border:1px solid #767676;padding:8px 12px;max-width:900px"
    return f"<div style='{box}'>{head}{word}{rows}{_cases(verdict)}</div>"


def _cases(verdict: Verdict) -> str:
    """Every case in a list that is folded, where there are several."""
    if len(verdict.cases) < 2:
        return ""
    names = {True: "holds", False: "fails", None: "cannot be told"}
    items = "".join(f"<li>{names[case.holds]}: {html.escape(str(case))}</li>" for case in verdict.cases)
    return f"<details><summary>all {len(verdict.cases)} cases</summary><ul>{items}</ul></details>"


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
    from lora_course.claims.cards import judge_all

    Path(file).write_text(listing(judge_all()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

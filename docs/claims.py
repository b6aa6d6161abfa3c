"""The verdicts on all claims as a page: `python docs/claims.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_course.claims.cards import MARKS, Verdict, judge_all

INTRODUCTION = """# What people say about LoRA

Each claim is a card in `data/claims`: who says it, what must be found if it is right, the numbers it rests on. The
cards hold no verdicts. The verdicts below were computed by experiments on the cards' premises; change a premise and the
verdict may turn:

```bash
lora-lab claims one_24gb_card --set gpu_gb=48
```

- **true**: it held in every case.
- **false**: it failed in every case; or, if it's said of all cases alike, in at least one.
- **depends**: it held in some cases and failed in others; the setting that makes the difference is named.
- **undecided**: the evidence here can't tell; the command says what could.

Lesson [09](../notebooks/09_monday.ipynb) works with these cards. This page is written by `python docs/claims.py`.

| | claim | verdict | what it does not show | id |
|---|---|---|---|---|
"""


def listing(verdicts: Mapping[str, Verdict]) -> str:
    """The claims with their verdicts as Markdown, without figures that another machine would measure otherwise."""
    rows = (
        f"| {v.card.number} | {v.card.statement} | {MARKS[v.word]} {v.words} | {v.card.limits} | `{name}` |\n"
        for name, v in verdicts.items()
    )
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(listing(judge_all()), encoding="utf-8")

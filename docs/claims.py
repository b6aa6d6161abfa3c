"""Write the verdicts on all claims to docs/claims.md: `python docs/claims.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_course.claims.cards import MARKS, Verdict, judge_all

INTRODUCTION = """# What people say about LoRA

Each claim is a card in `data/claims`: who says it and where, what must be found if it's right, and the numbers it
rests on. The cards store no verdicts: experiments compute them from the premises. Change a premise, and the verdict can
flip:

```bash
lora-lab claims one_24gb_card --set gpu_gb=48
```

**true**: it held in every case. **false**: it failed in every case; a claim about *any* case is false if one fails.
**depends**: it held in some cases and failed in others, and the setting that makes the difference is named.
**undecided**: the evidence here can't tell; the command says what could.

[Lesson 09](../notebooks/09_monday.ipynb) works with these cards in a panel. `python docs/claims.py` writes this page.

| | claim | who says it | verdict | what it doesn't show | id |
|---|---|---|---|---|---|
"""


def listing(verdicts: Mapping[str, Verdict]) -> str:
    """Format the claims with their verdicts as Markdown."""
    rows = (
        f"| {v.card.number} | {v.card.statement} | {v.card.said_by} ({v.card.source}) | {MARKS[v.word]} {v.words} "
        f"| {v.card.limits} | `{name}` |\n"
        for name, v in verdicts.items()
    )
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(listing(judge_all()), encoding="utf-8")

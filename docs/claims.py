"""Write docs/claims.md, the verdicts on all claims: `python docs/claims.py`."""

from collections.abc import Mapping
from pathlib import Path

from lora_course.claims.cards import MARKS, Verdict, judge_all

INTRODUCTION = """# What people say about LoRA

Each claim is a card in `data/claims`. A card states who says it and where, what an experiment must find if the claim is
right, and the premises that the claim depends on. The cards store no verdicts: experiments compute the verdicts from
the premises. Change a premise, and the verdict can flip:

```bash
lora-lab claims one_24gb_card --set gpu_gb=48
```

**true**: the claim held in every case. **false**: it failed in every case; a claim about *any* case is false if it
fails in one. **depends**: it held in some cases and failed in others; the verdict names the settings that make the
difference. **undecided**: the evidence here can't decide the claim; the command says what evidence could.

[Lesson 09](../notebooks/09_monday.ipynb) works with these cards in a panel. `python docs/claims.py` writes this page.

| | claim | who says it | verdict | what it doesn't show | id |
|---|---|---|---|---|---|
"""


def listing(verdicts: Mapping[str, Verdict]) -> str:
    """Return the page: the introduction and a row for each claim."""
    rows = (
        f"| {v.card.number} | {v.card.statement} | {v.card.said_by} ({v.card.source}) | {MARKS[v.word]} {v.words} "
        f"| {v.card.limits} | `{name}` |\n"
        for name, v in verdicts.items()
    )
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(listing(judge_all()), encoding="utf-8")

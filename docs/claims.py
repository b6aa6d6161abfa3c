"""Write docs/claims.md, the verdicts on all claims: `python docs/claims.py`."""

from collections.abc import Mapping
from pathlib import Path

from lora_course.claims.cards import MARKS, Verdict, judge_all

INTRODUCTION = """# What people say about LoRA

For each claim, the folder `data/claims` contains a file, called a card. A card states who makes the claim and where,
what an experiment must find if the claim is right, and the premises that the claim depends on. The cards store no
verdicts. Experiments compute them from the premises, so a changed premise may change a verdict. For example:

```bash
lora-lab claims one_24gb_card --set gpu_gb=48
```

The verdict is **true** if the claim held in every case, and **false** if it failed in every case (or in one case, if
the claim is about *all* cases). The verdict is **depends** if the claim held in some cases and failed in others; the
page then names the settings that make the difference. The verdict is **undecided** if the evidence can't decide the
claim. In [lesson 09](../notebooks/09_monday.ipynb), you can change the premises of claims in a panel.

| | claim | who says it | verdict | what the experiment doesn't show | id |
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

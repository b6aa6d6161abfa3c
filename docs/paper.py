"""Write the second half of docs/paper.md from data/paper: published, what follows, what others got, what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lora_course.paper import markdown_table, names, recomputed, table
from lora_lab.files import write_atomically

PAGE = Path(__file__).with_suffix(".md")
MADE = "<!-- From here on"  # what stands above this line is written by hand
HEAD = """One file per table in `data/paper/`. The figures are transcribed; column names, notes and what is said to be
wrong are ours.

```python
from lora_course import paper

paper.table("table5")                                # in a notebook: rows, notes, what others got, what does not follow
paper.table("table5").row(weights="Wq", rank=8)      # {"weights": "Wq", "rank": 8, "WikiSQL": 70.4, "MNLI": 91.0}
paper.table("table5").frame()                        # a pandas frame; frame(spreads=True) with what follows ±
paper.recomputed("table3")                           # each number that follows from others, computed again
```
"""

VERDICTS = ("exact", "rounded", "does not follow")
FOLLOWS = """Counts come from `lora_lab.params`, from a model's config and a method; the rest is arithmetic on other
printed numbers. *Exact*: after rounding, it equals the printed number. *Rounded*: cut off, or rounded to fewer digits
than are printed, or within an "about". Where the paper states no size, the nearest one was taken."""


def document() -> str:
    """The whole page: what is written by hand, then what the data say."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MADE)
    note = " this page is made from data/paper by `python docs/paper.py`; a test holds it to the data. -->"
    tables = [table(name) for name in names()]
    numbers = recomputed().to_dict("records")
    verdicts = Counter((row["table"], row["verdict"]) for row in numbers)
    published = [
        (f"`{one.name}`", one.title, one.seeds, *(str(verdicts[one.name, v] or "") for v in VERDICTS)) for one in tables
    ]
    where: dict[tuple[str, ...], dict[str, None]] = {}  # one row for each number, however many tables repeat it
    for row in numbers:
        if row["verdict"] == VERDICTS[-1]:
            how = str(row["derivation"]).partition(";")[0]
            where.setdefault((row["published"], row["exact"], how), {})[row["table"]] = None
    differ: dict[str, list[str]] = {}  # each sentence once, with the tables that it is shown with
    for one in tables:
        for sentence in one.discrepancies:
            differ.setdefault(sentence, []).append(one.name)
    others = ((one.name, f"{what}: {words}") for one in tables for what, words in one.expected.items())
    parts = [
        f"{written}{mark}{note}\n\n{HEAD}\n## What is published\n",
        markdown_table(("name", "what", "a figure is", *VERDICTS), published),
        f"\nThe last three columns count what could be recomputed.\n\n## What does not follow\n\n{FOLLOWS}\n",
        markdown_table(
            ("in", "published", "exact", "how"), [(", ".join(own), *number) for number, own in where.items()]
        ),
        "\n## What others got\n",
        *_bullets(others),
        "\n## Where the paper, its code and reruns differ\n",
        *_bullets((", ".join(own), sentence) for sentence, own in differ.items()),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _bullets(items: Iterable[tuple[str, str]]) -> list[str]:
    """A heading and its sentences."""
    together: dict[str, list[str]] = {}
    for heading, sentence in items:
        together.setdefault(heading, []).append(sentence)
    lines = []
    for heading, (first, *more) in together.items():
        lines += (
            [f"- **{heading}:**", *(f"  - {one}" for one in (first, *more))] if more else [f"- **{heading}:** {first}"]
        )
    return lines


if __name__ == "__main__":
    write_atomically(PAGE, document().encode())

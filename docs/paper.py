"""Write the second half of docs/paper.md from data/paper: `python docs/paper.py`."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from lora_course.paper import markdown_table, names, recomputed, table
from lora_lab.files import write_atomically

PAGE = Path(__file__).with_suffix(".md")
MARK = "<!-- From here on"  # the text above this line is written by hand
HEAD = """Each table of the paper has a file in `data/paper/`. The numbers are copied from the paper; we wrote the
column names, the notes and the reports of errors.

```python
from lora_course import paper

paper.table("table5")                                # in a notebook: rows, notes, other people's results, known errors
paper.table("table5").row(weights="Wq", rank=8)      # {"weights": "Wq", "rank": 8, "WikiSQL": 70.4, "MNLI": 91.0}
paper.table("table5").frame()                        # a pandas frame; frame(spreads=True) includes the ± values
paper.recomputed("table3")                           # every number that follows from other numbers, recomputed
```
"""

VERDICTS = ("exact", "rounded", "does not follow")
RECOMPUTED = """We counted parameters with `lora_lab.params`, and computed the other numbers from numbers in the paper.
Our number is *exact* if it rounds to the printed number. It is *rounded* if the paper truncates this number, rounds it
more coarsely than the printed digits suggest, or says "about". Otherwise, the printed number *does not follow*. If the
paper states no size for a method (such as the size of a bottleneck or a prefix), we used the size whose parameter
count is closest to the printed one."""


def document() -> str:
    """Return the whole page: the handwritten part, then the generated part."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    note = " this page is generated from data/paper by `python docs/paper.py`; a test checks it against the data. -->"
    tables = [table(name) for name in names()]
    numbers = recomputed().to_dict("records")
    verdicts = Counter((row["table"], row["verdict"]) for row in numbers)
    published = [(f"`{t.name}`", t.title, t.seeds, *(str(verdicts[t.name, v] or "") for v in VERDICTS)) for t in tables]
    wrong: dict[tuple[str, ...], dict[str, None]] = {}  # each number once, with its tables
    for row in numbers:
        if row["verdict"] == VERDICTS[-1]:
            derivation = str(row["derivation"]).partition(";")[0]
            wrong.setdefault((row["published"], row["exact"], derivation), {})[row["table"]] = None
    discrepancies: dict[str, list[str]] = {}  # each sentence once, with its tables
    for t in tables:
        for sentence in t.discrepancies:
            discrepancies.setdefault(sentence, []).append(t.name)
    reruns = ((t.name, f"{quantity}: {result}") for t in tables for quantity, result in t.expected.items())
    parts = [
        f"{written}{mark}{note}\n\n{HEAD}\n## What is published\n",
        markdown_table(("name", "content", "what each number is", *VERDICTS), published),
        f"\nThe last three columns count the numbers that we recomputed.\n\n## What does not follow\n\n{RECOMPUTED}\n",
        markdown_table(("in", "published", "exact", "how"), [(", ".join(ts), *row) for row, ts in wrong.items()]),
        "\n## What others got\n",
        *_bullets(reruns),
        "\n## Where the paper, its code and reruns differ\n",
        *_bullets((", ".join(tables), sentence) for sentence, tables in discrepancies.items()),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _bullets(items: Iterable[tuple[str, str]]) -> list[str]:
    """Format (heading, sentence) pairs as bullets, with several sentences of a heading as a nested list."""
    groups: dict[str, list[str]] = {}
    for heading, sentence in items:
        groups.setdefault(heading, []).append(sentence)
    lines = []
    for heading, sentences in groups.items():
        if len(sentences) == 1:
            lines.append(f"- **{heading}:** {sentences[0]}")
        else:
            lines += [f"- **{heading}:**", *(f"  - {sentence}" for sentence in sentences)]
    return lines


if __name__ == "__main__":
    write_atomically(PAGE, document().encode())

"""docs/paper.md, made of the tables as data: what is published, what follows, what others got, where things differ.

python -m lora_course.paper.in_words docs/paper.md
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lora_course.paper import Table, markdown_table, names, table
from lora_course.paper.recomputed import EXACT, NOT, ROUNDED, frame, recomputed, why_not
from lora_lab.files import write_atomically

HEAD = """# The paper as data

<!-- Made from data/paper by `python -m lora_course.paper.in_words docs/paper.md`; a test holds them to it. -->

Hu et al. 2021, *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685v2. Its tables lie in
`data/paper/`, a file each. The figures are transcribed; names of columns, notes and what is said to be wrong are ours.

```python
from lora_course import paper
from lora_course.paper import recomputed

paper.table("table5")                                # in a notebook: rows, notes, what others got, what does not hold
paper.table("table5").row(weights="Wq", rank=8)      # {"weights": "Wq", "rank": 8, "WikiSQL": 70.4, "MNLI": 91.0}
paper.table("table5").frame()                        # a pandas frame; frame(spreads=True) with what stands behind ±
recomputed.frame("table3")                           # each number that follows from something, computed anew
```
"""

FOLLOWS = """Counts come from `lora_lab.params`, which sees a model's config and a method; the rest is arithmetic on
other printed numbers. *Exact*: rounded, it is what is printed. *Rounded*: cut off instead, or to fewer digits than are
printed, or within an "about". Where the paper states no size, the one that comes nearest was taken."""


def document() -> str:
    """The whole page."""
    return "\n".join(_parts()).rstrip() + "\n"


def _parts() -> Iterator[str]:
    yield HEAD
    yield "## What is published\n"
    yield markdown_table(("name", "what", "a figure is", EXACT, ROUNDED, NOT), map(_published, _tables()))
    yield "\nThe last three columns count what could be recomputed.\n"
    yield f"## What does not follow\n\n{FOLLOWS}\n"
    yield markdown_table(("in", "published", "exact", "how"), _not_following())
    yield f"\n{_left()}\n"
    yield "## What others got\n"
    yield from _bullets((one.name, f"{what}: {words}") for one in _tables() for what, words in one.expected.items())
    yield "\n## Where the paper, its code and reruns differ\n"
    yield from _bullets((", ".join(where), sentence) for sentence, where in _differences().items())


def _tables() -> list[Table]:
    return [table(name) for name in names()]


def _published(one: Table) -> tuple[str, ...]:
    verdicts = Counter(found.verdict for found in recomputed() if found.table == one.name)
    return f"`{one.name}`", one.title, one.seeds, *(str(verdicts[v] or "") for v in (EXACT, ROUNDED, NOT))


def _not_following() -> list[tuple[str, ...]]:
    """One row for each number, however many tables repeat it."""
    where: dict[tuple[str, ...], list[str]] = {}
    for row in frame().to_dict("records"):
        if row["verdict"] == NOT:
            how = str(row["derivation"]).partition(";")[0]
            where.setdefault((row["published"], row["exact"], how), []).append(row["table"])
    return [(", ".join(dict.fromkeys(tables)), *number) for number, tables in where.items()]


def _left() -> str:
    """How many numbers cannot be recomputed, by the reason."""
    done = {(found.table, found.row, found.column) for found in recomputed()}
    reasons = Counter(
        why_not(one, i, column)
        for one in _tables()
        for i, row in enumerate(one.records())
        for column, cell in row.items()
        if cell is not None and (one.name, i, column) not in done
    )
    told = "; ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
    return f"Beyond recomputing, counted in cells: {told}."


def _differences() -> dict[str, list[str]]:
    """Each sentence once, with the tables that it is shown with."""
    found: dict[str, list[str]] = {}
    for one in _tables():
        for sentence in one.discrepancies:
            found.setdefault(sentence, []).append(one.name)
    return found


def _bullets(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A heading and what belongs to it; sentences with the same heading stand below it."""
    together: dict[str, list[str]] = {}
    for heading, sentence in items:
        together.setdefault(heading, []).append(sentence)
    for heading, sentences in together.items():
        yield f"- **{heading}:** {sentences[0]}" if len(sentences) == 1 else f"- **{heading}:**"
        yield from (f"  - {sentence}" for sentence in sentences if len(sentences) > 1)


if __name__ == "__main__":
    write_atomically(Path(sys.argv[1]), document().encode())

"""Every number of the paper's tables that follows from something is computed anew and set beside the print.

    recomputed()      Recomputed(table, row, column, published "0.35M", derivation, exact 393216), its verdict
    frame("table3")   the same as a pandas frame, to be read
    why_not(...)      for all the others: why they cannot be

Counts come from our own accountant (`lora_lab.params`), which sees nothing but a model's config: where it and the
print agree, both are right.
"""

from __future__ import annotations

from functools import cache

import pandas as pd

from lora_course.paper import table
from lora_course.paper.recomputed.base import EXACT, NOT, ROUNDED, Recomputed, verdict
from lora_course.paper.recomputed.counts import counts
from lora_course.paper.recomputed.left import NAMES, SETTINGS, why_not
from lora_course.paper.recomputed.ratios import ratios

__all__ = ["EXACT", "NOT", "ROUNDED", "Recomputed", "frame", "recomputed", "verdict", "why_not"]

COLUMNS = ["table", "number", "published", "exact", "verdict", "derivation"]


@cache
def recomputed() -> tuple[Recomputed, ...]:
    """All of them, the counts first."""
    return (*counts(), *ratios())


def frame(name: str | None = None) -> pd.DataFrame:
    """A row for each number, of one table or of all: which it is, published, exact, verdict, derivation, to be read.

    Raises: NotFound for a table that is not there.
    """
    wanted = recomputed() if name is None else [one for one in recomputed() if one.table == table(name).name]
    return pd.DataFrame([_record(one) for one in wanted], columns=COLUMNS)


def _record(one: Recomputed) -> tuple[str, ...]:
    unit = f" {one.unit}".rstrip()
    exact = f"{one.exact:,.0f}" if one.exact >= 10_000 else f"{one.exact:.4g}"
    return one.table, _number(one), one.published + unit, exact + unit, one.verdict, one.derivation


def _number(one: Recomputed) -> str:
    """Which number it is: what names its row, and the column."""
    if one.row is None:
        return "in words"
    row = table(one.table).records()[one.row]
    cells = [
        str(cell)
        for column, cell in row.items()
        if column in (*NAMES, *SETTINGS) and column != "unit" and cell not in (None, "")
    ]
    return f"{', '.join(cells)}: {one.column}"

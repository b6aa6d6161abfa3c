"""Tables of what students wrote, as CSV that a spreadsheet may open."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from lora_lab.errors import printable

FORMULAS = ("=", "+", "-", "@")


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines of comma-separated values."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    for row in (head, *rows):
        table.writerow([safe(value) for value in row])
    return out.getvalue()


def safe(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula and no terminal for a command; other values as they are."""
    if not isinstance(value, str):
        return value
    plain = printable(value)
    return f"'{plain}" if plain.startswith(FORMULAS) else plain

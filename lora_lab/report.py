"""Tables and sentences as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lora_lab.errors import printable

if TYPE_CHECKING:
    import pandas as pd


def report(tables: Mapping[str, pd.DataFrame], sentences: Sequence[str] = ()) -> str:
    """Format {caption: table}, then sentences. Table cells are text, or numbers that pandas formats."""
    parts = [f"{printable(caption)}\n{_text(table)}".lstrip("\n") for caption, table in tables.items()]
    return "\n\n".join(filter(None, [*parts, "\n".join(map(printable, sentences))]))


def aligned(lines: Sequence[Sequence[str]], sides: str = "") -> list[str]:
    """Align columns two spaces apart; `sides` has < or > for each column, by default all left-aligned."""
    lines = [[printable(cell) for cell in line] for line in lines]  # before they are measured
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    formats = list(zip(sides or "<" * len(widths), widths, strict=True))
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(line, formats, strict=True)).rstrip()
        for line in lines
    ]


def _text(table: pd.DataFrame) -> str:
    """Format a table with text left-aligned and numbers right-aligned."""
    is_text = [all(isinstance(cell, str) for cell in column) for _, column in table.items()]
    lines = [list(map(str, table.columns)), *table.astype(str).to_numpy().tolist()]
    return "\n".join(aligned(lines, "".join("<" if left else ">" for left in is_text)))

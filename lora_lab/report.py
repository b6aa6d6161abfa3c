"""A result as title, picture, tables and sentences, rendered as HTML, for a terminal, or as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """A title, a picture, tables and sentences. Table cells are text, or numbers that pandas formats.

    picture    a `Picture`, or a file that Markdown links to
    tables     {caption: frame}; "" for a table without one
    """

    title: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    picture: Any = None

    def to_text(self) -> str:
        """For a terminal; the picture is left out."""
        tables = [f"{caption}\n{_text(table)}".lstrip("\n") for caption, table in self.tables.items()]
        return "\n\n".join(filter(None, [self.title, *tables, "\n".join(self.sentences)]))

    def to_markdown(self) -> str:
        """For a page; a picture is linked if it is a file."""
        parts = [f"# {self.title}" if self.title else ""]
        if isinstance(self.picture, str | Path):
            parts.append(f"![{self.title}]({self.picture})")
        for caption, table in self.tables.items():
            lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
            rows = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
            parts += [caption, rows]
        return "\n\n".join(filter(None, [*parts, *self.sentences])) + "\n"

    def to_html(self) -> str:
        """For a panel; the picture is embedded, with title and sentences as its alternative text."""
        parts = [f"<h3>{escape(self.title)}</h3>" if self.title else ""]
        if self.picture is not None and not isinstance(self.picture, str | Path):
            data, alt = base64.b64encode(self.picture._repr_png_()).decode(), " ".join([self.title, *self.sentences])
            parts.append(f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">')
        for caption, table in self.tables.items():
            parts.append(f"<p>{escape(caption)}</p>" if caption else "")
            parts.append(table.to_html(index=False, border=0))
        return "\n".join(filter(None, [*parts, *(f"<p>{escape(one)}</p>" for one in self.sentences)]))

    _repr_html_ = to_html
    __str__ = to_text


def aligned(lines: Sequence[Sequence[str]], sides: str = "") -> list[str]:
    """A table's lines with columns two spaces apart; `sides` has < or > for each column, by default all to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shape = list(zip(sides or "<" * len(widths), widths, strict=True))
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(line, shape, strict=True)).rstrip()
        for line in lines
    ]


def _text(table: pd.DataFrame) -> str:
    """Text to the left, numbers to the right."""
    text = [all(isinstance(cell, str) for cell in column) for _, column in table.items()]
    lines = [list(map(str, table.columns)), *table.astype(str).to_numpy().tolist()]
    return "\n".join(aligned(lines, "".join("<" if one else ">" for one in text)))

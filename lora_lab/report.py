"""A result as a title, picture, tables and sentences, rendered as text, Markdown or HTML."""

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
    """A title, picture, tables and sentences. Table cells are text, or numbers that pandas formats.

    picture    a `Picture`, or a file for Markdown to link to
    tables     {caption: frame}; "" for no caption
    """

    title: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    picture: Any = None

    def to_text(self) -> str:
        """Render for a terminal, without the picture."""
        tables = [f"{caption}\n{_text(table)}".lstrip("\n") for caption, table in self.tables.items()]
        return "\n\n".join(filter(None, [self.title, *tables, "\n".join(self.sentences)]))

    def to_markdown(self) -> str:
        """Render for a page; the picture is linked if it is a file."""
        parts = [f"# {self.title}" if self.title else ""]
        if isinstance(self.picture, str | Path):
            parts.append(f"![{self.title}]({self.picture})")
        for caption, table in self.tables.items():
            lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
            rows = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
            parts += [caption, rows]
        return "\n\n".join(filter(None, [*parts, *self.sentences])) + "\n"

    def to_html(self) -> str:
        """Render for a panel; the picture is embedded, with the title and sentences as its alt text."""
        parts = [f"<h3>{escape(self.title)}</h3>" if self.title else ""]
        if self.picture is not None and not isinstance(self.picture, str | Path):
            data, alt = base64.b64encode(self.picture._repr_png_()).decode(), " ".join([self.title, *self.sentences])
            parts.append(f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">')
        for caption, table in self.tables.items():
            parts.append(f"<p>{escape(caption)}</p>" if caption else "")
            parts.append(table.to_html(index=False, border=0))
        return "\n".join(filter(None, [*parts, *(f"<p>{escape(sentence)}</p>" for sentence in self.sentences)]))

    _repr_html_ = to_html
    __str__ = to_text


def aligned(lines: Sequence[Sequence[str]], sides: str = "") -> list[str]:
    """Align columns two spaces apart; `sides` has < or > for each column, by default all left-aligned."""
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

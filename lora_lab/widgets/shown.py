"""A picture with its words and its numbers: what it shows for those who cannot see it, or want to know exactly.

The stock image widget has no text alternative. This one is sent a PNG, a sentence and tables in one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import traitlets as T


class Table(NamedTuple):
    """Numbers under a picture. Cells are text, never interpreted; the first of a row names it.

    caption   what is tabled, with its unit
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Shown(anywidget.AnyWidget):
    """A PNG that is painted again and again, its text alternative, and its numbers as tables that are folded away."""

    _esm = Path(__file__).with_name("shown.js")

    value = T.Bytes().tag(sync=True)  # the PNG; empty for none
    alt = T.Unicode().tag(sync=True)
    tables: T.List = T.List().tag(sync=True)  # [[caption, head, rows], ...]
    least = T.Int().tag(sync=True)  # pixels below which it scrolls and does not shrink: else nobody could read it

    def show(self, png: bytes, alt: str, *tables: Table) -> None:
        """Another picture. An empty `png` shows none."""
        with self.hold_sync():
            self.value, self.alt = png, alt
            self.tables = [[one.caption, list(one.head), [list(row) for row in one.rows]] for one in tables]

    def numbers(self) -> str:
        """The tables as plain text, for a test or a log."""
        lines: list[Any] = [[[caption], head, *rows] for caption, head, rows in self.tables]
        return "\n".join(" | ".join(row) for table in lines for row in table)

"""What every panel is: controls, a picture with its numbers, and the same conclusion in words.

A picture is a PNG that is painted again, not a figure that is made again: quick, and the same in every front end.
`Shown` gives it a text alternative and a table, `Named` gives the controls names: no panel has to think of either.
"""

from __future__ import annotations

import base64
import html
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import ipywidgets as W

from lora_lab.widgets.named import Named
from lora_lab.widgets.shown import Shown

FULL_WIDTH = W.Layout(width="auto")  # as wide as the panel, margins included


class Panel(W.VBox):
    """A column of widgets with a picture and words. Subclasses paint; several threads may.

    least   pixels that the picture needs to be read; where there is less room it scrolls
    """

    def __init__(self, title: str, least: int = 480) -> None:
        self.title = title
        self.picture = Shown(least=least, layout=W.Layout(max_width="100%"))
        self.words = W.HTML(layout=FULL_WIDTH).add_class("lora-words")
        self.lock = threading.RLock()  # callbacks, the training thread and the painting thread share the figure
        super().__init__(layout=W.Layout(width="100%", max_width="900px"))
        self.add_class("lora-panel")

    def arrange(self, *widgets: W.Widget) -> None:
        """The panel's rows, from above."""
        self.children = [*widgets, Named(title=self.title, layout=W.Layout(margin="0"))]

    def tell(self, trouble: str) -> None:
        """Add to the words, where it is not there yet, that something could not be painted."""
        words = f" <b>painting failed</b> ({escape(trouble)})."
        with self.lock:
            if words not in self.words.value:
                self.words.value += words

    def describe(self) -> str:
        """The panel in plain words, for a notebook that is read and not run."""
        return f"{self.title}. {plain(self.words.value)}"

    def still(self) -> bytes:
        """What a saved notebook shows, as a PNG; empty for nothing."""
        return bytes(self.picture.value)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        with self.lock:  # it may be drawn while it is shown once more
            return with_picture(super()._repr_mimebundle_(**kwargs), self.still(), self.describe())


def with_picture(bundle: Any, png: bytes, words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A live widget's bundle and, beside it, a picture and words that a saved notebook shows when no kernel runs."""
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
    data = {**data, "text/plain": words}
    if png:
        data["image/png"] = base64.b64encode(png).decode()
        metadata = {**metadata, "image/png": {"alt": words}}
    return data, metadata


def wrapped(*widgets: W.Widget) -> W.Box:
    """Widgets side by side that flow onto the next line where the notebook is narrow."""
    return W.Box(widgets, layout=W.Layout(display="flex", flex_flow="row wrap", width="100%", align_items="center"))


def scrolling(name: str, markup: str, style: str = "overflow-x:auto") -> str:
    """Markup that is wider than a narrow notebook: it scrolls by itself, with the arrow keys too."""
    return f"<div role='region' tabindex='0' aria-label='{escape(name)}' style='{style}'>{markup}</div>"


def tabled(
    name: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, cells: str = "", style: str = "overflow-x:auto"
) -> str:
    """A table as `scrolling` markup. Head and cells are markup, so whoever has data in them escapes it.

    rows     the last cell of one that is too short takes the rest of its line
    cells    the style of each cell
    """
    top = "".join(f"<th>{one}</th>" for one in head)
    body = "".join(f"<tr>{''.join(_cells(row, len(head), cells))}</tr>" for row in rows)
    return scrolling(name, f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", style)


def _cells(row: Sequence[str], width: int, style: str) -> Iterator[str]:
    for place, cell in enumerate(row, 1):
        how = f"colspan='{width - place + 1}'" if place == len(row) < width else f"style='{style}'"
        yield f"<td {how}>{cell}</td>"


def cannot(sentence: str) -> str:
    """An error, in words and not by colour alone."""
    return f"<span style='color:var(--jp-error-color1, #b00020)'><b>cannot do that:</b> {escape(sentence)}</span>"


def escape(text: str) -> str:
    """Text for an HTML widget: data and errors are shown, never interpreted."""
    return html.escape(text)


def plain(markup: str) -> str:
    """The text of a piece of HTML."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", markup).split()))

"""What every panel is: controls, one picture, and the same conclusion in words.

A picture is a PNG that is painted again, not a figure that is made again: quick, and the same in every front end.
Sliders have no name for a screen reader and pictures no alternative text, so the words beside them say it all.
"""

from __future__ import annotations

import base64
import html
import re
import threading
from typing import Any

import ipywidgets as W

FULL_WIDTH = W.Layout(width="100%")


class Panel(W.VBox):
    """A column of widgets with a picture and words. Subclasses paint; several threads may."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.picture = W.Image(format="png", layout=W.Layout(max_width="100%", height="auto"))
        self.words = W.HTML(layout=FULL_WIDTH)
        self.lock = threading.RLock()  # callbacks, the training thread and the painting thread share the figure
        super().__init__(layout=W.Layout(width="100%", max_width="900px"))

    def describe(self) -> str:
        """The panel in plain words, for a notebook that is read and not run."""
        return f"{self.title}. {plain(self.words.value)}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The live widget and, beside it, a picture that a saved notebook still shows when no kernel runs."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = {**data, "text/plain": self.describe()}
        if self.picture.value:
            data["image/png"] = base64.b64encode(bytes(self.picture.value)).decode()
        return data, metadata


def wrapped(*widgets: W.Widget) -> W.Box:
    """Widgets side by side that flow onto the next line where the notebook is narrow."""
    return W.Box(widgets, layout=W.Layout(display="flex", flex_flow="row wrap", width="100%", align_items="center"))


def escape(text: str) -> str:
    """Text for an HTML widget: data and errors are shown, never interpreted."""
    return html.escape(text)


def plain(markup: str) -> str:
    """The text of a piece of HTML."""
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", markup).split()))

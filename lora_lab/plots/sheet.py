"""A figure that is painted over and over while results come in: axes at fixed places, scales kept where they can be."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image  # comes with matplotlib

from lora_lab.plots import Picture


class Sheet:
    """Axes at fixed places that are painted again and again: a layout that is found anew each time is half the cost.

    places    (left, bottom, width, height) of each axes, in shares of the figure
    """

    def __init__(self, width: float, height: float, *places: tuple[float, float, float, float]) -> None:
        self.figure = Picture(figsize=(width, height), dpi=100, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes: list[Any] = [self.figure.add_axes(place) for place in places]
        self.kind: object = None

    def paint(self, kind: object, *draw: Callable[[Any], None]) -> bytes:
        """The picture as a PNG, each axes drawn on by its own function.

        kind    equal for pictures whose axes have the same scales and ticks, which are then kept: most of the cost
        """
        for axes, one in zip(self.axes, draw, strict=True):
            _wipe(axes) if kind == self.kind and kind is not None else axes.clear()
            axes.set_facecolor("white")
            axes.spines[:].set_visible(True)
            one(axes)
        self.kind = kind
        self.canvas.draw()
        return encoded(self)


def _wipe(axes: Any) -> None:
    """Take away what was drawn, not the axes' scales and ticks."""
    drawn = (axes.images, axes.lines, axes.collections, axes.patches, axes.texts, filter(None, [axes.get_legend()]))
    for artist in [artist for kind in drawn for artist in kind]:
        artist.remove()
    axes.relim()


def encoded(*sheets: Sheet) -> bytes:
    """A PNG of sheets of one height side by side, as painted last; opaque, compressed little."""
    buffer, pixels = io.BytesIO(), np.hstack([np.asarray(sheet.canvas.buffer_rgba()) for sheet in sheets])
    Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])).save(buffer, "png", compress_level=1)
    return buffer.getvalue()

"""A figure that is painted over and over while results come in: axes at fixed places, scales kept where they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lora_lab.plots import Picture, encoded


class Sheet(Picture):
    """Axes at fixed places that are painted again and again: a layout that is found anew each time is half the cost.

    places    (left, bottom, width, height) of each axes, in shares of the figure
    """

    def __init__(self, width: float, height: float, *places: tuple[float, float, float, float]) -> None:
        super().__init__(figsize=(width, height), dpi=100, facecolor="white")
        for place in places:
            self.add_axes(place)
        self.kind: object = None

    def paint(self, kind: object, *draw: Callable[[Any], None]) -> bytes:
        """The picture as a PNG, each axes drawn on by its own function.

        kind    equal for pictures whose axes have the same scales and ticks, which are then kept: most of the cost
        """
        kept, self.kind = kind is not None and kind == self.kind, None  # of what fails half-way nothing is kept
        for axes, one in zip(self.axes, draw, strict=True):
            _wipe(axes) if kept else axes.clear()
            axes.set_facecolor("white")
            axes.spines[:].set_visible(True)
            one(axes)
        self.kind = kind
        return encoded(self)


def _wipe(axes: Any) -> None:
    """Take away what was drawn, not the axes' scales and ticks."""
    drawn = (axes.images, axes.lines, axes.collections, axes.patches, axes.texts, filter(None, [axes.get_legend()]))
    for artist in [artist for kind in drawn for artist in kind]:
        artist.remove()
    axes.relim()

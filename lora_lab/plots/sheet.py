"""A figure that is painted over and over while results come in: axes at fixed places."""

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

    def paint(self, *draw: Callable[[Any], None]) -> bytes:
        """The picture as a PNG, each axes drawn on by its own function."""
        for axes, one in zip(self.axes, draw, strict=True):
            axes.clear()
            axes.set_facecolor("white")
            axes.spines[:].set_visible(True)
            one(axes)
        return encoded(self)

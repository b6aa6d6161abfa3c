"""Names beside the ends of lines, in place of a legend, moved apart where they would touch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression  # type: ignore[import-untyped]

from lora_lab.plots import Picture


def name_ends(axes: Any, ends: Sequence[tuple[str, str, float, float]], size: float = 9) -> None:
    """Write the name of each (name, color, x, y) to the right of the axes, with a line of its color to its point.

    Names are dark, because not every color can be read on white. Call it when the axes' limits are final.
    """
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    axes.figure.draw_without_rendering()
    room = float(axes.get_window_extent().height * 72 / axes.figure.dpi)  # points
    to_share = axes.transData + axes.transAxes.inverted()
    at = [float(to_share.transform((x, y))[1]) * room for _, _, x, y in ends]  # points above the lower edge
    for (name, color, x, y), place in zip(ends, spread(at, 1.3 * size, room), strict=True):
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "alpha": 0.7, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(
            name, (x, y), (1.03, place / room), textcoords="axes fraction", fontsize=size, color="#222222",
            va="center", annotation_clip=False, arrowprops=line,
        )  # fmt: skip


def spread(at: Sequence[float], gap: float, room: float = 1.0) -> list[float]:
    """The nearest places with a gap between neighbors, in the same order, within 0 to room.

    Less i * gap, place i of the sorted ones must not fall: the isotonic regression, clipped.
    """
    order, steps = np.argsort(at, kind="stable"), gap * np.arange(len(at))
    fitted = isotonic_regression(np.asarray(at, float)[order] - steps).x
    places = np.empty(len(at))
    places[order] = np.clip(fitted, 0, max(room - steps[-1], 0)) + steps
    return places.tolist()


def titled(picture: Picture, lines: Sequence[str], size: float = 10) -> None:
    """A title of several lines at the left edge, broken where the figure is narrow; the figure grows by them."""
    letters = int(72 * picture.get_figwidth() / (0.52 * size))
    words = "\n".join(textwrap.fill(line, letters) for line in lines)
    picture.set_figheight(picture.get_figheight() + size / 60 * words.count("\n"))
    picture.suptitle(words, fontsize=size, x=0.01, ha="left")

"""Names that stand beside the ends of lines, in place of a legend: moved apart where they would touch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from lora_lab.plots import Picture


def name_ends(axes: Any, ends: Sequence[tuple[str, str, float, float]], size: float = 9) -> None:
    """Write the name of each (name, colour, x, y) to the right of the axes, with a line of its colour to its point.

    Names are dark, because not every colour can be read on white. Call it when the axes' limits are final.
    """
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    room, to_share = _height(axes), axes.transData + axes.transAxes.inverted()
    at = [float(to_share.transform((x, y))[1]) * room for _, _, x, y in ends]  # points above the lower edge
    for (name, colour, x, y), place in zip(ends, spread(at, 1.3 * size, room), strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.8, "alpha": 0.7, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(
            name, (x, y), (1.03, place / room), textcoords="axes fraction", fontsize=size, color="#222222",
            va="center", annotation_clip=False, arrowprops=line,
        )  # fmt: skip


def spread(at: Sequence[float], gap: float, room: float = 1.0) -> list[float]:
    """Places as near to those asked for as a gap between neighbours allows, in the same order, within 0 to room."""
    order = sorted(range(len(at)), key=lambda n: at[n])
    groups: list[list[int]] = []
    for n in order:  # neighbours that would touch stand as one block about the middle of what they asked for
        groups.append([n])
        while len(groups) > 1 and _top(groups[-2], at, gap, room) + gap > _bottom(groups[-1], at, gap, room):
            last = groups.pop()
            groups[-1] += last
    places = {n: _bottom(group, at, gap, room) + i * gap for group in groups for i, n in enumerate(group)}
    return [places[n] for n in range(len(at))]


def titled(picture: Picture, lines: Sequence[str], size: float = 10) -> None:
    """A title of several lines at the left edge, broken where the figure is narrow; the figure grows by them."""
    letters = int(72 * picture.get_figwidth() / (0.52 * size))
    words = "\n".join(textwrap.fill(line, letters) for line in lines)
    picture.set_figheight(picture.get_figheight() + size / 60 * words.count("\n"))
    picture.suptitle(words, fontsize=size, x=0.01, ha="left")


def _bottom(group: Sequence[int], at: Sequence[float], gap: float, room: float) -> float:
    long = (len(group) - 1) * gap
    middle = sum(at[n] for n in group) / len(group)
    return max(min(middle - long / 2, room - long), 0.0)


def _top(group: Sequence[int], at: Sequence[float], gap: float, room: float) -> float:
    return _bottom(group, at, gap, room) + (len(group) - 1) * gap


def _height(axes: Any) -> float:
    """Of the axes, in points, as the layout will have it."""
    axes.figure.draw_without_rendering()
    return float(axes.get_window_extent().height * 72 / axes.figure.dpi)

"""Names beside their dots, none on top of another: each takes the nearest free place, with a leader where that is far.

 LoRA
o   BitFit        a place is free if the name's box meets no name, no dot and no edge of the axes
  o------ IA3
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.text import Text
from matplotlib.transforms import Bbox

NEAR, FAR = 10, 90  # points from the dot
TURNS = (0, 180, 90, 270, 35, 325, 145, 215)  # degrees: right and left before above and below


def name_dots(
    axes: Any, dots: Sequence[tuple[float, float]], names: Sequence[str], avoid: Sequence[tuple[float, float]] = (),
    size: float = 8, colours: Sequence[str] = (),
) -> list[Text]:  # fmt: skip
    """Write a name beside each dot.

    dots, avoid     in data coordinates; `avoid` are further marks that no name may hide
    size            of the letters, in points
    The axes' limits and scales are to be final, for what is free depends on them.
    """
    axes.figure.canvas.draw()  # a constrained layout finds its place only now
    taken = [_round(axes, place) for place in (*dots, *avoid)]
    frame, made = axes.get_window_extent(), []
    for number, (dot, name) in enumerate(zip(dots, names, strict=True)):
        colour = colours[number] if colours else "#222222"
        text = axes.annotate(
            name, dot, xytext=(NEAR, 0), textcoords="offset points", fontsize=size, color=colour, va="center", zorder=6
        )
        _settle(text, frame, taken)
        taken.append(text.get_window_extent())
        made.append(text)
    return made


def _settle(text: Any, frame: Bbox, taken: Sequence[Bbox]) -> None:
    """Move a name to its nearest free place; where none is free it stays at the last that was tried."""
    for away in range(NEAR, FAR, 6):
        for turn in TURNS:
            across, up = away * math.cos(math.radians(turn)), away * math.sin(math.radians(turn))
            text.set_position((across, up))
            text.set_horizontalalignment("left" if across > 1 else "right" if across < -1 else "center")
            box = text.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                _lead(text, away)
                return


def _lead(text: Any, away: float) -> None:
    """A line from a dot to a name that stands far from it."""
    if away > 2 * NEAR:
        text.axes.annotate(
            "", text.xy, xytext=text.get_position(), textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def _round(axes: Any, place: tuple[float, float]) -> Bbox:
    x, y = axes.transData.transform(place)
    half = 4 * axes.figure.dpi / 72
    return Bbox([[x - half, y - half], [x + half, y + half]])

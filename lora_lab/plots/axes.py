"""Axes as pictures begin and end with them."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from lora_lab.plots import Picture


def new_axes(width: float, height: float, *grid: int, **how: Any) -> tuple[Picture, Any]:
    """A picture (size in inches) and its axes, one pair or, as `subplots` takes them, a grid of rows and columns."""
    picture = Picture(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    return picture, picture.subplots(*grid, **how)


def finish(axes: Any, title: str, below: str, grid: str = "both") -> None:
    """The finding above, what is drawn below, a grid behind."""
    width = axes.figure.get_figwidth()
    axes.figure.suptitle(fill(title[:1].upper() + title[1:], int(11.8 * width)), fontsize=10)
    axes.set_xlabel(f"{axes.get_xlabel()}\n{fill(below, int(13 * width))}".strip(), fontsize=8)
    axes.yaxis.label.set_size(9)
    axes.tick_params(labelsize=8)
    tidy(axes, grid)


def tidy(axes: Any, grid: str = "both") -> None:
    """A white face, a pale grid behind what is drawn, and no frame above and at the right."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#e9e9e9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)

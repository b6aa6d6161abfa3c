"""Create and style axes."""

from __future__ import annotations

from typing import Any

from lora_lab.plots import Picture


def new_axes(width: float, height: float, *grid: int, **options: Any) -> tuple[Picture, Any]:
    """Return a picture, with its size in inches, and its axes; `grid` and options are those of `subplots`."""
    picture = Picture(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    return picture, picture.subplots(*grid, **options)


def tidy(axes: Any, grid: str = "both") -> None:
    """Set a white background and a pale grid behind the data, and remove the top and right spines."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#e9e9e9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)

"""Describe a figure in words: its titles, and where each labeled line starts, turns and ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def in_words(figure: Figure) -> str:
    """Return the titles and values of a figure: labeled lines, and the range of a heat map."""
    suptitle = figure.get_suptitle()
    parts = [suptitle, *(text.get_text() for text in figure.texts if text.get_text() != suptitle)]
    for axes in figure.axes:
        values = "; ".join([*_lines(axes), *_maps(axes)])
        labels = f"{axes.get_ylabel()} over {axes.get_xlabel()}"
        parts += [axes.get_title() or axes.get_title("left"), values and f"{labels}: {values}"]
    return " ".join(f"{' '.join(part.split()).rstrip('.')}." for part in parts if part)


def _lines(axes: Any) -> Iterator[str]:
    for line in axes.lines:
        points = np.array(line.get_data(orig=False), float)  # numbers, even on an axis with names
        points = points[:, np.isfinite(points).all(0)]
        if points.size and not line.get_label().startswith("_"):  # matplotlib's default for lines without a label
            yield f"{line.get_label()} ({_course(*points)})"


def _course(xs: np.ndarray, ys: np.ndarray) -> str:
    """Describe the ends of a line, and its highest and lowest point if they lie between the ends."""
    extremes = [("highest ", int(ys.argmax())), ("lowest ", int(ys.argmin()))]
    turns = [(word, i) for word, i in extremes if ys[i] not in (ys[0], ys[-1])]
    points = [("", 0), *sorted(turns, key=lambda turn: turn[1]), *([("", len(xs) - 1)] if len(xs) > 1 else [])]
    return ", ".join(f"{word}{_short(ys[i])} at {_short(xs[i])}" for word, i in points)


def _maps(axes: Any) -> Iterator[str]:
    for image in axes.images:
        cells = image.get_array().astype(float).filled(np.nan)
        if cells.ndim == 2 and np.isfinite(cells).any():
            yield f"from {_short(np.nanmin(cells))} to {_short(np.nanmax(cells))}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

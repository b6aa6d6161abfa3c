"""Voices in a picture: what each adapter finds likely."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import Rectangle

from lora_lab.plots import BLUE, Picture


def perplexity_table(table: Mapping[str, Mapping[str, float]], mark: str = "") -> Picture:
    """Adapters down, voices across; in each column the lowest is framed, and its own adapter is meant to have it."""
    rows, columns = list(table), list(next(iter(table.values())))
    numbers = np.array([[table[row][column] for column in columns] for row in rows])
    picture = Picture(figsize=(1.9 + 1.35 * len(columns), 1.5 + 0.5 * len(rows)), dpi=130, layout="constrained")
    picture.set_facecolor("white")
    axes = picture.subplots()
    worse = np.log(numbers / numbers.min(0))  # by column: 0 for its best
    shade = worse / np.maximum(worse.max(0), 1e-9)  # and 1 for its worst: columns are not to be compared
    axes.imshow(-shade, cmap="cividis", aspect="auto")
    for i in range(len(rows)):
        for j in range(len(columns)):
            dark = shade[i, j] > 0.4
            axes.text(j, i, f"{numbers[i, j]:.1f}", ha="center", va="center", color="white" if dark else "black")
            if worse[i, j] == 0:
                axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, fill=False, edgecolor=BLUE, linewidth=3))
    axes.set(xlabel="voice of the held-out answers", ylabel="adapter in use")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    best = {column: rows[int(numbers[:, j].argmin())] for j, column in enumerate(columns)}
    finding = _finding(best)
    _titled(picture, [f"{finding}{mark}", "perplexity per token; framed: lowest of its column"], 9)
    picture.alt = f"{finding}{mark}. " + " ".join(
        f"{row}: " + ", ".join(f"{column} {table[row][column]:.1f}" for column in columns) + "." for row in rows
    )
    return picture


def _titled(picture: Picture, lines: Sequence[str], size: float = 10) -> None:
    """A title of several lines at the left edge, broken where the figure is narrow; the figure grows by them."""
    letters = int(72 * picture.get_figwidth() / (0.52 * size))
    words = "\n".join(textwrap.fill(line, letters) for line in lines)
    picture.set_figheight(picture.get_figheight() + size / 60 * words.count("\n"))
    picture.suptitle(words, fontsize=size, x=0.01, ha="left")


def _finding(best: Mapping[str, str]) -> str:
    own = [voice for voice, adapter in best.items() if adapter == voice]
    if len(own) == len(best):
        return "Each voice is most likely under its own adapter"
    lost = [f"{voice} (most likely under {adapter})" for voice, adapter in best.items() if adapter != voice]
    return f"Not every voice is most likely under its own adapter: {', '.join(lost)}"

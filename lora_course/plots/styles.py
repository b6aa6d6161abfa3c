"""A perplexity table: how likely each voice's answers are under each adapter."""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from lora_lab.plots import BLUE, Picture, new_axes


def perplexity_table(table: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draw adapters as rows, voices as columns; each column's lowest value is bold (ideally in its adapter's row)."""
    numbers = pd.DataFrame(table).T
    rows, columns = list(table), list(next(iter(table.values())))
    picture, axes = new_axes(1.9 + 1.35 * len(columns), 1.5 + 0.5 * len(rows))
    picture.set_dpi(130)
    excess = np.log((numbers / numbers.min()).to_numpy())  # per column: 0 for the lowest perplexity
    shade = excess / np.maximum(excess.max(0), 1e-9)  # 0 for the lowest, 1 for the highest: columns aren't comparable
    blues = LinearSegmentedColormap.from_list("", [BLUE, "white"])
    axes.imshow(0.9 * shade, cmap=blues, vmin=0, vmax=1, aspect="auto")
    for (i, j), number in np.ndenumerate(numbers.to_numpy()):
        color, weight = "white" if shade[i, j] < 0.2 else "black", "normal" if excess[i, j] else "bold"
        axes.text(j, i, f"{number:.1f}", ha="center", va="center", color=color, fontweight=weight)
    axes.set(frame_on=False, xlabel="voice of the held-out answers", xticks=range(len(columns)), xticklabels=columns)
    axes.set(ylabel="adapter in use", yticks=range(len(rows)), yticklabels=rows)
    lost = [f"{voice} (most likely under {best})" for voice, best in numbers.idxmin().items() if best != voice]
    finding = "Each voice is most likely under its own adapter"
    if lost:
        finding = f"Not every voice is most likely under its own adapter: {', '.join(lost)}"
    width = int(15.4 * picture.get_figwidth())  # in characters of this size
    lines = (finding, "perplexity per token; in each column, dark means low, and the lowest is bold")
    title = "\n".join(textwrap.fill(line, width) for line in lines)
    picture.set_figheight(picture.get_figheight() + 0.15 * title.count("\n"))
    picture.suptitle(title, fontsize=9, x=0.01, ha="left")
    shown = {row: ", ".join(f"{column} {table[row][column]:.1f}" for column in columns) for row in rows}
    picture.alt = " ".join([f"{finding}.", *(f"{row}: {numbers}." for row, numbers in shown.items())])
    return picture

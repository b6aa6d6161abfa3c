"""The rank panel's still picture, for a notebook that is read and not run: what the browser draws, drawn by Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from lora_lab.experiments.low_rank import energy_kept
from lora_lab.plots import BLUE, GREY, ORANGE, Picture

DECADES = 4  # of the log axis
ZERO = 1e-13  # of the largest value: what is no larger is rounding
SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "white", ORANGE])  # as in rank_panel.js


def rank_picture(
    matrix: np.ndarray, cut: np.ndarray, values: Sequence[float], baseline: Sequence[float], rank: int, limit: float,
    grey: bool,
) -> bytes:  # fmt: skip
    """Original, cut at r, what is missing, and both spectra, as a PNG with a white face.

    limit   the entry that is drawn in full colour
    """
    figure = Picture(figsize=(9.6, 2.9), dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.35])
    titles = (f"original, {matrix.shape[0]} x {matrix.shape[1]}", f"cut at rank {rank}", "what is missing")
    rows = np.arange(0, len(matrix), _apart(len(matrix)))
    for place, shown, title in zip(axes, (matrix, cut, matrix - cut), titles, strict=False):
        place.imshow(shown, cmap="gray" if grey else SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
        place.set_title(title, fontsize=9)
        place.set(xticks=[], yticks=[] if grey else rows)  # of a weight one asks which rows; of a picture not
        place.set_yticklabels([] if grey else [row if i % 2 == 0 or row == 96 else "" for i, row in enumerate(rows)])
        place.tick_params(labelsize=6, length=2, pad=1)
        place.spines[:].set_visible(False)
    _spectra(axes[-1], values, baseline, rank)
    return figure._repr_png_()


def _spectra(axes: Any, values: Sequence[float], baseline: Sequence[float], rank: int) -> None:
    count = np.arange(1, len(values) + 1)
    axes.semilogy(count, _drawable(values), color=BLUE, linewidth=2, label="this matrix")
    axes.semilogy(count, _drawable(baseline), color=GREY, linewidth=1.2, linestyle="--", label="same numbers, shuffled")
    axes.axvline(rank, color=ORANGE, linewidth=2, label=f"cut at r = {rank}")
    kept, noise = (100 * energy_kept(np.array(s), rank) for s in (values, baseline))
    axes.set_title(f"{rank} of {len(values)} pieces keep {kept:.1f} %,\nof the shuffled {noise:.1f} %", fontsize=9)
    axes.set_xlabel("number of the singular value", fontsize=8)
    axes.set_ylabel("singular value (log)", fontsize=8)
    axes.set_xlim(0, len(values) + 1)
    if words := end_words(values):
        axes.text(0.98, 0.03, words, transform=axes.transAxes, fontsize=7, ha="right", color=BLUE)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def end_words(values: Sequence[float]) -> str:
    """Where the values come to nothing, as rank_panel.js says it; empty where they do not."""
    none = [number for number, value in enumerate(values, 1) if value <= ZERO * max(values)]
    return f"0 from {none[0]} on" if none else ""


def _drawable(values: Sequence[float]) -> np.ndarray:
    """A log axis has no zero: the line ends where the values fall more than DECADES below the largest."""
    floor = max(values) * 10**-DECADES
    return np.array([value if value and value >= floor else np.nan for value in values])


def _apart(rows: int) -> int:
    """Every how many rows a tick stands: a power of two, about twelve of them."""
    return int(2 ** max(0, np.ceil(np.log2(rows / 12))))

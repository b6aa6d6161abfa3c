"""The rank panel's still picture, for a notebook that is read and not run: what the browser draws, drawn by Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from lora_lab.accounting.low_rank import energy_kept
from lora_lab.plots import BLUE, GREY, ORANGE, Picture

SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "white", ORANGE])  # as in rank_panel.js


def rank_picture(
    matrix: np.ndarray, cut: np.ndarray, values: Sequence[float], baseline: Sequence[float], rank: int, grey: bool
) -> bytes:
    """Original, cut at r, what is missing, and both spectra, as a PNG with a white face."""
    figure = Picture(figsize=(9.6, 2.9), dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.35])
    limit = float(np.quantile(np.abs(matrix), 1 if grey else 0.99)) or 1.0
    titles = (f"original, {matrix.shape[0]} x {matrix.shape[1]}", f"cut at rank {rank}", "what is missing")
    for place, shown, title in zip(axes, (matrix, cut, matrix - cut), titles, strict=False):
        place.imshow(shown, cmap="gray" if grey else SIGNED, vmin=-limit, vmax=limit, interpolation="nearest")
        place.set_title(title, fontsize=9)
        place.set_axis_off()
    _spectra(axes[-1], values, baseline, rank)
    return figure._repr_png_()


def _spectra(axes: Any, values: Sequence[float], baseline: Sequence[float], rank: int) -> None:
    count = np.arange(1, len(values) + 1)
    axes.semilogy(count, _drawable(values), color=BLUE, linewidth=2, label="this matrix")
    axes.semilogy(count, _drawable(baseline), color=GREY, linewidth=1.2, linestyle="--", label="same numbers, shuffled")
    axes.axvline(rank, color=ORANGE, linewidth=2)
    axes.set_title(f"singular values; {energy_kept(np.array(values), rank):.1%} of the energy kept", fontsize=9)
    axes.set_xlabel("number of the singular value", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def _drawable(values: Sequence[float], decades: float = 4) -> np.ndarray:
    """A log axis has no zero: what is `decades` below the largest value is drawn at the floor."""
    largest = max(values)
    return np.maximum(values, largest * 10**-decades) if largest else np.ones(len(values))

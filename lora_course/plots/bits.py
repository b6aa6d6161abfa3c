"""Where the levels of 4 bits lie among a model's weights, and what fewer bits cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from lora_course.experiments.bits import SIXTEEN, Curve, bits_of, short
from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, RED, Picture
from lora_lab.plots.axes import new_axes, tidy
from lora_lab.plots.beside import titled

OUTCOMES = {"better": (GREEN, "^"), "equivalent": (BLUE, "o"), "undecided": (ORANGE, "s"), "worse": (RED, "v")}


def levels_among_weights(scaled: np.ndarray, levels: Mapping[str, np.ndarray], errors: Mapping[str, float]) -> Picture:
    """Weights over the absmax of their block as a histogram, and beneath it the levels of each format as marks.

    scaled   any shape, -1 to 1; levels, errors: by the name of a format; an error is relative, |W - W'| / |W|
    """
    picture, (above, below) = new_axes(6.4, 3.6, 2, 1, sharex=True, height_ratios=(3, 0.5 * len(levels)))
    above.hist(scaled.ravel(), bins=81, range=(-1.01, 1.01), color=GREY, density=True)
    above.set(ylabel="weights (density)", facecolor="white")
    for place, marks in enumerate(levels.values()):
        below.vlines(marks, place + 0.15, place + 0.85, color=(BLUE, RED, ORANGE, GREEN)[place], linewidth=2)
    below.set(ylim=(len(levels), 0), xlabel="weight / absmax of its block", facecolor="white")
    below.set_yticks(np.arange(len(levels)) + 0.5, list(levels))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    least = min(errors, key=lambda name: errors[name])
    said = ", ".join(f"{name} {100 * error:.1f} %" for name, error in errors.items())
    titled(picture, [f"{least} has its levels where the weights are: error {said}"])
    picture.alt = f"A bell of scaled weights, most near 0; relative error: {said}."
    return picture


def quality_against_bits(found: Curve, beside: Curve | None = None) -> Picture:
    """Test accuracy against bits a weight: each seed a dot, the means joined, marked by the verdict against 16 bits.

    beside   further runs, such as a live one, drawn as crosses
    """
    picture, axes = new_axes(6.8, 4.2)
    rows = found.table()
    bits, means = [row["bits"] for row in rows], [100 * row["mean"] for row in rows]
    axes.plot(bits, means, color=GREY, linewidth=1.2, zorder=1)
    for row in rows:
        _draw(axes, row)
    for dtype, runs in (beside.runs if beside else {}).items():
        ys = [100 * run.metrics["accuracy"] for run in runs.runs]
        axes.scatter([bits_of(dtype)] * len(ys), ys, marker="x", s=60, color="#000000", zorder=4, label="yours")
    axes.set_xscale("log", base=2)
    axes.set_xticks(bits, [f"{short(row['dtype'])}\n{row['bits']:.3g}" for row in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="the base's linear layers: bits a weight, scales included (log)", ylabel="test accuracy (%)")
    tidy(axes)
    axes.legend(*_once(axes), fontsize=8, frameon=False, loc="lower right")
    titled(picture, [headline(found)])
    picture.alt = f"Test accuracy against bits a weight. {found}"
    return picture


def headline(found: Curve) -> str:
    """The finding in a line: "against 16 bits: int8 equivalent, nf4 undecided, nf3 and nf2 worse"."""
    by_outcome: dict[str, list[str]] = {}
    for row in found.table():
        if row["outcome"]:
            by_outcome.setdefault(row["outcome"], []).append(short(row["dtype"]))
    said = ", ".join(f"{' and '.join(names)} {outcome}" for outcome, names in by_outcome.items())
    return f"LoRA on a base of few bits, against 16: {said}" if said else "LoRA on a base of few bits"


def _draw(axes: Any, row: Mapping[str, Any]) -> None:
    """One dtype: its seeds as small dots, its mean in the mark of its verdict."""
    colour, marker = OUTCOMES.get(row["outcome"], ("#222222", "D"))
    axes.scatter([row["bits"]] * len(row["each"]), [100 * y for y in row["each"]], s=16, color=colour, alpha=0.5)
    name = row["outcome"] or ("reference (bf16)" if row["dtype"] == SIXTEEN else "alone")
    axes.scatter([row["bits"]], [100 * row["mean"]], s=64, color=colour, marker=marker, zorder=3, label=name)


def _once(axes: Any) -> tuple[list[Any], list[str]]:
    """Handles and labels of a legend, each label one time."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    return list(found.values()), list(found)

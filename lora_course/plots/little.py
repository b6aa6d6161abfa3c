"""Accuracy against the number of training texts: every draw a dot, means joined, names beside the lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from lora_course.experiments.little import Little
from lora_lab.plots import Picture
from lora_lab.plots.axes import new_axes, tidy
from lora_lab.plots.beside import name_ends, titled
from lora_lab.plots.sweeps import COLOURS, MARKERS

APART = 1.09  # methods stand side by side at a size: each by this factor to the right of the one before


def accuracy_by_examples(found: Little, width: float = 6.4) -> Picture:
    """The picture of `little`; the title says what the verdicts are. `width` in inches."""
    picture, axes = new_axes(width, 4.2)
    ends = [_draw(axes, group, place, len(found.methods)) for place, group in enumerate(_groups(found)) if len(group)]
    axes.set_xscale("log")
    axes.set_xticks(found.sizes, [found.size_name(size).replace(" ", "\n") for size in found.sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(found.sizes[0] / 1.4, found.sizes[-1] * 1.4)
    axes.set(xlabel="training examples (log)", ylabel="test accuracy (%)")
    tidy(axes)
    titled(picture, headline(found))
    name_ends(axes, ends)
    picture.alt = in_words(found)
    return picture


def headline(found: Little) -> list[str]:
    """The finding as the lines of a title."""
    return found.finding() or [f"Accuracy of {found.against} by the number of examples"]


def in_words(found: Little) -> str:
    """The picture for those who do not see it: what is drawn, each mean and range, and the verdicts."""
    draws = found.frame.groupby(["method", "examples"]).size()
    many = f"{draws.min()} to {draws.max()}" if draws.nunique() > 1 else f"{draws.max() if len(draws) else 0}"
    drawn = f"Test accuracy against the number of training examples, {many} dots for each method and number."
    return f"{drawn} {found}"


def _groups(found: Little) -> Sequence[pd.DataFrame]:
    return [found.frame[found.frame["method"] == name] for name in found.methods]


def _draw(axes: Any, group: pd.DataFrame, place: int, of: int) -> tuple[str, str, float, float]:
    """One method's dots and means; returns where its line ends: name, colour, x, y."""
    colour, marker, aside = COLOURS[place % 8], MARKERS[place % 8], APART ** (place - (of - 1) / 2)
    axes.scatter(
        group["examples"] * aside, 100 * group["accuracy"], s=14, color=colour, marker=marker, alpha=0.45, linewidths=0
    )
    means = 100 * group.groupby("examples")["accuracy"].mean()
    xs = np.array(means.index, float) * aside
    axes.plot(xs, means.values, color=colour, marker=marker, markersize=5, linewidth=1.6)
    return str(group["method"].iloc[0]), colour, float(xs[-1]), float(means.iloc[-1])

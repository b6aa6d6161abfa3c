"""What is forgotten against what is learned: a path for every run, from the untuned model to the end of training."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lora_course.experiments.forgetting import Forgetting
from lora_lab.plots import GREY, Picture
from lora_lab.plots.axes import new_axes, tidy
from lora_lab.plots.beside import name_ends, titled
from lora_lab.plots.sweeps import COLOURS, MARKERS


def forgetting_path(found: Forgetting, width: float = 6.4) -> Picture:
    """The other text's perplexity over the own validation loss, which falls to the right as training goes on.

    Methods are compared along a vertical line: equal learning. `width` in inches.
    """
    picture, axes = new_axes(width, 4.2)
    axes.axhline(found.base, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    paths = {name: found.frame[found.frame["method"] == name] for name in found.runs}
    ends = [_draw(axes, name, path, place) for place, (name, path) in enumerate(paths.items()) if len(path)]
    for level in set(found.levels.values()):
        axes.axvline(level, color=GREY, linestyle=":", linewidth=1.2, zorder=1)
    axes.invert_xaxis()
    axes.margins(x=0.03)
    axes.set(xlabel=f"validation loss on {found.task} (nats per token),\nfalling to the right")
    axes.set(ylabel=f"perplexity on {found.other}")
    tidy(axes)
    titled(picture, headline(found))
    name_ends(axes, [*ends, ("before tuning", GREY, axes.get_xlim()[1], found.base)])
    picture.alt = in_words(found)
    return picture


def headline(found: Forgetting) -> list[str]:
    """The finding as the lines of a title."""
    return found.finding() or [f"Perplexity on {found.other} while {next(iter(found.runs))} learns {found.task}"]


def in_words(found: Forgetting) -> str:
    """The picture for those who do not see it: what is drawn, where the paths end, and the verdicts."""
    levels = ", ".join(f"{level:.3f}" for level in sorted(set(found.levels.values())))
    at = f" Dotted lines mark the losses at which methods are compared: {levels}." if levels else ""
    return (
        f"Perplexity on {found.other} over the validation loss on {found.task}, a path for each of "
        f"{sum(map(len, found.runs.values()))} runs from the left, untuned, to the right. A dashed line marks the "
        f"perplexity before tuning.{at} {found}"
    )


def _draw(axes: Any, name: str, path: pd.DataFrame, place: int) -> tuple[str, str, float, float]:
    """One method's paths, a line for each seed; returns where they end on average: name, colour, x, y."""
    colour, marker = COLOURS[place % 8], MARKERS[place % 8]
    seeds = [one for _, one in path.groupby("seed")]
    for one in seeds:
        style = {"color": colour, "marker": marker, "markersize": 3, "linewidth": 1.1, "alpha": 0.6}
        axes.plot(one["loss"], one["other_perplexity"], **style)
    ends = pd.DataFrame([one[["loss", "other_perplexity"]].iloc[-1] for one in seeds])
    axes.scatter(ends["loss"], ends["other_perplexity"], color=colour, marker=marker, s=34, zorder=3)
    right = ends.sort_values("loss").iloc[0]  # the name's line starts at the path that goes furthest
    return name, colour, float(right["loss"]), float(right["other_perplexity"])

"""Pictures of many runs: quality against learning rate, rank or trainable parameters, with a dot for every run.

For maps over two settings, open the runs in a `SweepPanel`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lora_lab.experiments.results import settings_in
from lora_lab.metrics import factor, main_metric
from lora_lab.metrics import metric as named_metric
from lora_lab.plots import COLORS, Picture, metric_name, new_axes, tidy

MARKERS = "os^Dv<>p"
AXES = {"lr": "learning rate", "rank": "rank r", "adapter_parameters": "parameters of the adapter"}
LINES = ("method", "rank", "targets", "alpha")  # the settings that lines may stand for, in this order
COLUMNS, TICKS = 3, 9  # maximum number of panels side by side, and of values that each have a tick


def metric_of(frame: pd.DataFrame, split: str = "") -> str:
    """Return the name of the main metric's column (accuracy, perplexity or a correlation), prefixed with `split`."""
    return f"{split}{main_metric(dict.fromkeys(str(name).removeprefix('validation_') for name in frame))}"


def pictures(frame: pd.DataFrame) -> dict[str, Picture]:
    """Return {axis: picture}: "lr" and "rank" if runs differ in them, "adapter_parameters" if any run has an adapter.

    The "lr" picture shows validation scores. The others show test scores at the rate that is best on validation.
    If rates vary but no run was validated, draw nothing, because rates must not be chosen on test rows.
    """
    validation = metric_of(frame, "validation_")
    if frame.empty or (_varies(frame, "lr") and (validation not in frame or frame[validation].isna().all())):
        return {}
    tuned = best_rate(frame) if _varies(frame, "lr") else frame
    sized = tuned[tuned["adapter_parameters"] > 0]  # a head alone has 0, and the axis is logarithmic
    drawn = {"lr": frame, "rank": tuned[tuned["rank"].notna()]}
    varied = {axis: against(axis, runs) for axis, runs in drawn.items() if _varies(runs, axis)}
    return varied | ({} if sized.empty else {"adapter_parameters": against("adapter_parameters", sized)})


def against(axis: str, runs: pd.DataFrame) -> Picture:
    """Draw quality along an axis: a dot per run, and a line of means for each value of one setting.

    If the runs at one point of a line also differ in other settings, each combination of these has its own panel.
    """
    metric, free = metric_of(runs, "validation_" if axis == "lr" else ""), _differing(runs, [axis])
    lines = [name for name in LINES if name in free] or free or ["method"]
    by = min(lines, key=lambda name: len(_differing(runs, [axis, name])))  # the setting that needs the fewest panels
    panels = _differing(runs, [axis, by])
    parts = list(runs.groupby(panels, dropna=False)) if panels else [((), runs)]
    columns = min(COLUMNS, len(parts))
    rows = math.ceil(len(parts) / columns)
    size = 6.4 if columns == 1 else 3.6 * columns, 3.8 if rows == 1 else 3 * rows
    picture, grid = new_axes(*size, rows, columns, squeeze=False, sharex=True, sharey=True)
    picture.suptitle(f"{metric_name(metric)} against {AXES[axis]}, one dot per run", fontsize=10)
    line_of = runs.groupby(by, dropna=False).ngroup()
    for axes, (values, part) in zip(grid.flat, parts, strict=False):
        for index, group in part.groupby(line_of):
            color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
            axes.scatter(group[axis], factor(metric) * group[metric], s=16, color=color, marker=marker, alpha=0.6)
            means = group.groupby(axis)[metric].mean() * factor(metric)
            axes.plot(means, color=color, marker=marker, markersize=4, label=f"{by} {short(group[by].iloc[0])}")
        settings = zip(panels, values, strict=True)
        axes.set_title(", ".join(f"{name} {short(value)}" for name, value in settings), fontsize=9)
        axes.set(xscale="log", xlabel=f"{AXES[axis]} (log)", ylabel=metric_name(metric))
        if len(ticks := sorted(runs[axis].unique())) <= TICKS:
            axes.set_xticks(ticks, [short(tick) for tick in ticks])
            axes.minorticks_off()
        axes.tick_params(labelsize=8)
        axes.label_outer()
        tidy(axes)
        if line_of.nunique() > 1:
            axes.legend(fontsize=8, frameon=False)
    for axes in grid.flat[len(parts) :]:
        axes.set_visible(False)
    return picture


def best_rate(frame: pd.DataFrame) -> pd.DataFrame:
    """For each combination of settings, return the runs at the rate with the best mean on validation, not on test."""
    metric = metric_of(frame, "validation_")
    settings = [name for name in settings_in(frame) if name not in ("lr", "seed", "subset")]
    group = frame.groupby(settings, dropna=False).ngroup()  # a method may lack some settings
    means = frame.groupby([group, frame["lr"]])[metric].mean().dropna().groupby(level=0)
    best = means.idxmax() if named_metric(metric).higher_is_better else means.idxmin()
    return frame[pd.MultiIndex.from_arrays([group, frame["lr"]]).isin(best)].reset_index(drop=True)


def short(value: Any) -> str:
    """Format a setting for matplotlib, such as "0.0023", "16" or "q,v". If a run lacks the setting, return "none"."""
    if pd.isna(value):
        return "none"
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return str(value).replace("$", r"\$")  # otherwise, two dollar signs would enclose a formula
    return f"{value:g}" if len(f"{value:g}") < 7 else f"{value:.2g}"


def _varies(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and frame[name].nunique() > 1


def _differing(frame: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """Return the settings, other than rate, seed and draw, that differ among the runs at one point of a picture.

    An alpha that follows from the rank does not count as different if the rank is shown. Methods, and the targets of
    one method, are also compared between points, so that no line joins different methods or targets.
    """
    point = [name for name in shown if name in frame]
    groups: dict[str, Any] = {name: frame.groupby(point, dropna=False) for name in settings_in(frame)}
    groups |= {"method": frame.groupby(np.zeros(len(frame))), "targets": frame.groupby("method")}
    names = [name for name in settings_in(frame) if name not in ("lr", "seed", "subset", *shown)]
    return [name for name in names if groups[name][name].nunique(dropna=False).max() > 1]

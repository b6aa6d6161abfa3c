"""Pictures of many runs: heat maps, quality against learning rate, accuracy against rank, quality against parameters.

Every seed is drawn, not only the mean. `pictures` gives each function only runs that differ in the settings it draws.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import NullLocator

from lora_lab.errors import warn
from lora_lab.experiments.results import settings_in
from lora_lab.metrics import factor, main_metric
from lora_lab.metrics import metric as named_metric
from lora_lab.plots import COLORS, GRAY, Picture, metric_name, new_axes, tidy

MARKERS = "os^Dv<>p"
HEAT = LinearSegmentedColormap.from_list("heat", ["#f7fbff", "#6baed6", "#08306b"])  # light to dark, also in grayscale
SETTINGS = {"lr": "learning rate", "rank": "rank r"}  # axis labels
RANKS, COSTS = ("rank", "targets"), ("adapter_parameters", "method", "targets")  # columns that identify a point
Draw = Callable[[pd.DataFrame], Picture]


def metric_of(frame: pd.DataFrame, split: str = "") -> str:
    """Return the name of the main metric's column (accuracy, perplexity or a correlation), prefixed with `split`."""
    return f"{split}{main_metric(dict.fromkeys(str(name).removeprefix('validation_') for name in frame))}"


def pictures(frame: pd.DataFrame) -> dict[str, Picture]:
    """Return {name: picture} for each picture that has axes along which these runs differ.

    If runs differ in a setting that a picture does not show, they get separate pictures, whose titles and names show
    it. The picture with the most runs keeps the plain name. Issue a LabWarning if runs are in no picture, because too
    few share their settings. If rates vary but no run was validated, draw nothing: rates aren't chosen on test rows.
    """
    pictures: dict[str, Picture] = {}
    frame, drawn = frame.reset_index(drop=True), set[int]()
    if frame.empty:
        return pictures
    validation = metric_of(frame, "validation_")
    if frame["lr"].nunique() > 1 and (validation not in frame or frame[validation].isna().all()):
        return pictures
    ranked = frame[frame["rank"].notna()]
    lines = [name for name in ("rank", "targets", "alpha") if _varies(ranked, name)] or ["method"]
    line = min(lines, key=lambda name: len(_hidden(ranked, (name, "lr"))))  # the line that needs the fewest pictures

    def add(name: str, runs: pd.DataFrame, shown: Sequence[str], varying: Sequence[str], draw: Draw) -> None:
        parts = [(settings, part) for settings, part in _parts(runs, shown) if all(_varies(part, x) for x in varying)]
        parts = [pair for pair in parts if not _varies(pair[1], "lr") or pair[1][validation].notna().any()]
        if not parts:
            return
        sizes = [len(part) for _, part in parts]
        for settings, part in parts:
            picture = draw(part)
            drawn.update(part.index)
            if settings:
                axes, text = picture.axes[0], ", ".join(settings)
                axes.set_title(f"{axes.get_title()}\n{fill(text, 80)}", fontsize=axes.title.get_fontsize())
            distinct = [setting for setting in settings if not all(setting in other for other, _ in parts)]
            plain = len(part) == max(sizes) and sizes.count(len(part)) == 1
            key = re.sub(r"[^\w.=-]+", "_", name if plain else " ".join([name, *distinct]))[:100]
            pictures[f"{key}_{len(pictures)}" if key in pictures else key] = picture

    add("alpha_lr", ranked, ("alpha", "lr"), ("alpha", "lr"), partial(heat_map, down="alpha", across="lr"))
    add("rank_lr", ranked, ("rank", "lr"), ("rank", "lr"), partial(heat_map, down="rank", across="lr"))
    add("lr_curves", ranked, (line, "lr"), ("lr",), partial(rate_curves, by=line))
    add("lr_methods", frame[frame["rank"].isna()], ("method", "lr"), ("lr",), partial(rate_curves, by="method"))
    add("rank", ranked, RANKS, ("rank",), against_rank)
    add("pareto", frame, COSTS, ("adapter_parameters",), pareto)
    if not pictures:  # a single cell, or several whose difference no picture shows
        add("rank", ranked, RANKS, (), against_rank)
    if pictures and len(drawn) < len(frame):
        warn(f"{len(frame) - len(drawn)} of {len(frame)} runs are in no picture: too few share their settings")
    return pictures


def _varies(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and frame[name].nunique() > 1


def _hidden(frame: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """Return the settings, other than the seed, that differ among the runs at one point of a picture with these axes.

    An alpha that follows from the rank is not hidden if the rank is shown.
    """
    shown = [name for name in shown if name in frame]
    points = frame.groupby(shown, dropna=False)
    names = [name for name in settings_in(frame) if name not in ("lr", "seed", *shown)]
    return [name for name in names if points[name].nunique(dropna=False).max() > 1]


def _parts(frame: pd.DataFrame, shown: Sequence[str]) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """Yield (hidden settings as text, runs that share them); all runs at once if nothing is hidden."""
    names = _hidden(frame, shown)
    for values, part in frame.groupby(names, dropna=False) if names else [((), frame)]:
        if len(part):
            settings = zip(names, values, strict=True)
            yield [f"{n} {short(v)}" for n, v in settings if v is not None and v == v], part  # v != v: NaN


def heat_map(frame: pd.DataFrame, down: str, across: str) -> Picture:
    """Draw a cell for each pair of values: the mean over seeds, and the number of seeds; empty cells have no run."""
    metric = metric_of(frame, "validation_")
    table = frame.pivot_table(metric, down, across, ["mean", "count"], dropna=False)
    means, counts = factor(metric) * table["mean"].to_numpy(float), table["count"].fillna(0).to_numpy(int)
    rows, columns = list(table.index), list(table["mean"])
    picture, axes = new_axes(1.6 + 0.95 * len(columns), 1.5 + 0.5 * len(rows))  # so every cell has room for its text
    low, high = np.nanmin(means), np.nanmax(means)
    axes.imshow(means, cmap=HEAT, vmin=low, vmax=high if high > low else low + 1, aspect="auto", origin="lower")
    numbers = set(counts[counts > 0].tolist())
    for (i, j), value in np.ndenumerate(means):
        if not math.isnan(value):
            text = f"{value:.1f}" + (f"\nn = {counts[i, j]}" if len(numbers) > 1 else "")
            color = "white" if high > low and (value - low) / (high - low) > 0.5 else "#111111"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color=color)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), facecolor="#eeeeee")
    axes.set_xticks(range(len(columns)), map(short, columns), fontsize=8)
    axes.set_yticks(range(len(rows)), map(short, rows), fontsize=8)
    axes.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(columns) - 0.5, color="white", linewidth=1)  # separate rows
    axes.vlines(np.arange(1, len(columns)) - 0.5, -0.5, len(rows) - 0.5, color="white", linewidth=1)  # separate columns
    axes.set_xlabel(SETTINGS.get(across, across), fontsize=9)
    axes.set_ylabel(SETTINGS.get(down, down), fontsize=9)
    up = named_metric(metric).higher_is_better
    i, j = np.unravel_index(np.nanargmax(means) if up else np.nanargmin(means), means.shape)
    best = f"{'highest' if up else 'lowest'} mean at {down} {short(rows[i])}, {across} {short(columns[j])}"
    each = f", n = {numbers.pop()} each" if len(numbers) == 1 else ""
    axes.set_title(f"{metric_name(metric)}:\n{best}{each}", fontsize=9)
    return picture


def rate_curves(frame: pd.DataFrame, by: str = "rank") -> Picture:
    """Draw quality against learning rate: a line of means per rank, and a dot per seed."""
    picture, axes = new_axes(6.4, 3.8)
    metric = metric_of(frame, "validation_")
    lines = frame[by].nunique()
    for index, (value, group) in enumerate(frame.groupby(by)):
        shift = 1.02 ** (index - (lines - 1) / 2)  # so that dots at one rate do not overlap
        _line(axes, group, "lr", metric, index, f"{SETTINGS.get(by, by)} {short(value)}", shift)
    axes.set(xscale="log", xlabel="learning rate (log)", ylabel=metric_name(metric))
    title = f"{metric_name(metric)} against learning rate{f', by {SETTINGS.get(by, by)}' * (lines > 1)}"
    rates = sorted(frame["lr"].unique())
    if len(rates) < 9:  # ticks at the tried rates rather than at powers of ten
        axes.set_xticks(rates, [short(rate) for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
    _finish(axes, lines, title)
    return picture


def against_rank(frame: pd.DataFrame) -> Picture:
    """Draw each seed as a dot against rank, and lines of means; if rates vary, use each rank's best rate."""
    picture, axes = new_axes(6.4, 3.8)
    metric = metric_of(frame)
    chosen = best_rate(frame) if frame["lr"].nunique() > 1 else frame
    for index, (targets, group) in enumerate(chosen.groupby(chosen["targets"].fillna("-"))):
        _line(axes, group, "rank", metric, index, str(targets))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks := sorted(chosen["rank"].dropna().unique()), [short(r) for r in ranks])
    axes.minorticks_off()
    axes.set(xlabel="rank r (log)", ylabel=metric_name(metric))
    tuned = ", each rank at its own best rate" if frame["lr"].nunique() > 1 else ""
    _finish(axes, chosen["targets"].nunique(), f"{metric_name(metric)} against rank, one dot per seed{tuned}")
    return picture


def pareto(frame: pd.DataFrame) -> Picture:
    """Draw quality against trainable parameters: a dot per run, and the Pareto front of the means."""
    metric = metric_of(frame)
    picture, axes = new_axes(6.4, 3.8)
    chosen = best_rate(frame, (*COSTS, "rank")) if frame["lr"].nunique() > 1 else frame
    names = [name for name in ("method", "targets") if _varies(frame, name)] or ["targets"]
    for index, (values, group) in enumerate(chosen.assign(targets=chosen["targets"].fillna("-")).groupby(names)):
        style = {"color": COLORS[index % 8], "marker": MARKERS[index % 8], "label": " ".join(map(str, values))}
        axes.scatter(group["adapter_parameters"], factor(metric) * group[metric], s=22, **style)
    means = (chosen.groupby(list(COSTS), dropna=False)[metric].mean() * factor(metric)).groupby("adapter_parameters")
    front = means.max().cummax() if named_metric(metric).higher_is_better else means.min().cummin()
    axes.step(front.index, front.values, "--", where="post", color=GRAY, linewidth=1.2, label="best mean so far")
    axes.set(xscale="log", xlabel="parameters of the adapter (log)", ylabel=metric_name(metric))
    _finish(axes, 2, "Quality against trainable parameters, one dot per seed")
    return picture


def best_rate(frame: pd.DataFrame, by: Sequence[str] = ("method", "targets", "rank")) -> pd.DataFrame:
    """Return the runs at the rate with the best mean on validation, never on test, for each combination of `by`."""
    metric = metric_of(frame, "validation_")
    group = frame.groupby([name for name in by if name in frame], dropna=False).ngroup()  # a method may have no rank
    means = frame.groupby([group, frame["lr"]])[metric].mean().dropna().groupby(level=0)
    best = means.idxmax() if named_metric(metric).higher_is_better else means.idxmin()
    return frame[pd.MultiIndex.from_arrays([group, frame["lr"]]).isin(best)].reset_index(drop=True)


def _line(axes: Any, group: pd.DataFrame, across: str, metric: str, index: int, label: str, shift: float = 1) -> None:
    """Draw a line of means, and a dot per run with its x value multiplied by `shift`."""
    color, marker = COLORS[index % 8], MARKERS[index % 8]
    axes.scatter(shift * group[across], factor(metric) * group[metric], s=16, color=color, marker=marker, alpha=0.6)
    means = group.groupby(across)[metric].mean() * factor(metric)
    axes.plot(means.index, means.values, color=color, marker=marker, markersize=4, linewidth=1.5, label=label)


def short(value: Any) -> str:
    """Format a setting for an axis, such as 0.0023, 16 or q,v."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return str(value)
    return f"{value:g}" if len(f"{value:g}") < 7 else f"{value:.2g}"


def _finish(axes: Any, lines: int, title: str) -> None:
    """Set the title, font sizes and grid, and add a legend if there is more than one line."""
    axes.set_title(title, fontsize=10)
    tidy(axes)
    axes.tick_params(labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(9)
    if lines > 1:
        axes.legend(fontsize=8, frameon=False, loc="best")

"""Pictures of many runs: heat maps, curves over the learning rate, accuracy against rank, quality against parameters.

Every seed is drawn, not only a mean. Titles say what was found, and nothing that the dots do not show.
"""

from __future__ import annotations

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

from lora_lab.errors import BadValue, warn
from lora_lab.experiments.results import mixed_dtypes, settings_in
from lora_lab.metrics import factor, main_metric
from lora_lab.metrics import metric as named_metric
from lora_lab.plots import BLACK, BLUE, GRAY, GREEN, ORANGE, PURPLE, RED, SKY, Picture, metric_name
from lora_lab.plots.axes import new_axes, tidy

COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GRAY)
MARKERS = "os^Dv<>p"
HEAT = LinearSegmentedColormap.from_list("heat", ["#f7fbff", "#6baed6", "#08306b"])  # light to dark: also in gray
SIZE = (6.4, 3.8)  # inches
SMALLEST = 4.5  # points: the smallest letters that are written
SETTINGS = {"lr": "learning rate", "rank": "rank r"}  # as they stand at an axis
RANKS, COSTS = ("rank", "targets"), ("adapter_parameters", "method", "targets")  # what a picture's points are told by
Draw = Callable[[pd.DataFrame], Picture]


def metric_of(frame: pd.DataFrame, split: str = "") -> str:
    """What runs are judged by: accuracy, perplexity or a correlation; of a split: validation_accuracy."""
    return f"{split}{main_metric(dict.fromkeys(str(name).removeprefix('validation_') for name in frame))}"


def pictures(frame: pd.DataFrame) -> dict[str, Picture]:
    """Those of the pictures that these runs vary enough for, by name.

    Runs that differ in a setting that a picture does not show have pictures of their own, with the setting in title and
    name; those with more runs than any others keep the plain name. LabWarning for runs that are in no picture, as too
    few share their settings. None if rates vary and no run was validated: a rate is not chosen on the test rows.
    """
    made: dict[str, Picture] = {}
    frame, drawn = frame.reset_index(drop=True), set[int]()
    if frame.empty or (frame["lr"].nunique() > 1 and metric_of(frame, "validation_") not in frame):
        return made
    ranked = frame[frame["rank"].notna()]
    lines = [name for name in ("rank", "targets", "alpha") if _varies(ranked, name)] or ["method"]
    line = min(lines, key=lambda name: len(_hidden(ranked, (name, "lr"))))  # of which the fewest pictures are made

    def add(name: str, runs: pd.DataFrame, shown: Sequence[str], varying: Sequence[str], draw: Draw) -> None:
        parts = [one for one in _parts(runs, shown) if all(_varies(one[1], column) for column in varying)]
        sizes = [len(part) for _, part in parts]
        for told, part in parts:
            picture = draw(part)
            drawn.update(part.index)
            if told:
                axes, words = picture.axes[0], ", ".join(told)
                axes.set_title(f"{axes.get_title()}\n{fill(words, 80)}", fontsize=axes.title.get_fontsize())
            apart = [one for one in told if not all(one in other for other, _ in parts)]
            plain = len(part) == max(sizes) and sizes.count(len(part)) == 1
            key = re.sub(r"[^\w.=-]+", "_", name if plain else " ".join([name, *apart]))[:100]
            made[f"{key}_{len(made)}" if key in made else key] = picture

    add("alpha_lr", ranked, ("alpha", "lr"), ("alpha", "lr"), partial(heat_map, down="alpha", across="lr"))
    add("rank_lr", ranked, ("rank", "lr"), ("rank", "lr"), partial(heat_map, down="rank", across="lr"))
    add("lr_curves", ranked, (line, "lr"), ("lr",), partial(rate_curves, by=line))
    add("lr_methods", frame[frame["rank"].isna()], ("method", "lr"), ("lr",), partial(rate_curves, by="method"))
    add("rank", ranked, RANKS, ("rank",), against_rank)
    add("pareto", frame, COSTS, ("adapter_parameters",), pareto)
    if not made:  # a single cell, or several of which no picture shows the difference
        add("rank", ranked, RANKS, (), against_rank)
    if made and len(drawn) < len(frame):
        said = f"{len(frame) - len(drawn)} of {len(frame)} runs are in no picture: too few share their settings"
        warn(said)
    return made


def _varies(frame: pd.DataFrame, name: str) -> bool:
    return name in frame and frame[name].nunique() > 1


def _hidden(frame: pd.DataFrame, shown: Sequence[str]) -> list[str]:
    """Settings that differ among runs which a picture of these columns draws as seeds of one point.

    An alpha that follows from the rank is not hidden where the rank is shown.
    """
    shown = [name for name in shown if name in frame]
    points = frame.groupby(shown, dropna=False)
    names = [name for name in settings_in(frame) if name not in ("lr", "seed", *shown)]
    return [name for name in names if points[name].nunique(dropna=False).max() > 1]


def _parts(frame: pd.DataFrame, shown: Sequence[str]) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """The runs with the same hidden settings, and those settings in words; all of them if nothing is hidden."""
    if names := _hidden(frame, shown) if len(frame) else []:
        for values, part in frame.groupby(names, dropna=False):
            told = [
                (name, value) for name, value in zip(names, values, strict=True) if value is not None and value == value
            ]
            yield [f"{n} {short(v)}" for n, v in told], part
    elif len(frame):
        yield [], frame


def _check_shown(frame: pd.DataFrame, shown: Sequence[str]) -> None:
    """LabWarning if runs of one point were trained in different dtypes.

    Raises: BadValue if they differ in another setting than their seed: they would be taken for seeds.
    """
    names = _hidden(frame, shown)
    if "run_dtype" in names:
        names.remove("run_dtype")
        warn(mixed_dtypes(frame["run_dtype"].dropna()))
    cell = [name for name in ("seed", "run_dtype", *shown) if name in frame]
    if not names and "seed" in frame and frame.duplicated(cell).any():
        names = ["an option that has no column"]
    if names:
        raise BadValue(f"runs with the same {' and '.join(shown)} differ in {' and '.join(names)}: choose those of one")


def heat_map(frame: pd.DataFrame, down: str, across: str) -> Picture:
    """A cell for each pair of values: the mean over seeds in the cell, and how many seeds; empty cells have no run.

    Raises: BadValue for runs of one cell that differ in more than their seed.
    """
    _check_shown(frame, (down, across))
    metric = metric_of(frame, "validation_")
    rows, columns = sorted(frame[down].unique()), sorted(frame[across].unique())
    picture, axes = new_axes(1.6 + 0.95 * len(columns), 1.5 + 0.5 * len(rows))
    means, counts = _cells(frame, down, across, metric, rows, columns)
    size = 8.0  # points; smaller where a cell is too small for its letters
    low, high = np.nanmin(means), np.nanmax(means)
    axes.imshow(means, cmap=HEAT, vmin=low, vmax=high if high > low else low + 1, aspect="auto", origin="lower")
    _write_cells(axes, means, counts, size)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), facecolor="#eeeeee")
    for axis, values, room in zip((axes.xaxis, axes.yaxis), (columns, rows), _points(axes), strict=True):
        _name_ticks(axis, values, size, room)
    axes.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(columns) - 0.5, color="white", linewidth=1)  # between cells,
    axes.vlines(np.arange(1, len(columns)) - 0.5, -0.5, len(rows) - 0.5, color="white", linewidth=1)  # also empty ones
    axes.set_xlabel(SETTINGS.get(across, across), fontsize=size + 1)
    axes.set_ylabel(SETTINGS.get(down, down), fontsize=size + 1)
    title = f"{metric_name(metric)}: {_best(means, rows, columns, down, across, metric)}{_each(counts)}"
    wide = 0.58 * (size + 1) * len(title) > _points(axes)[0] + 3 * size
    axes.set_title(title.replace(": ", ":\n") if wide else title, fontsize=size + 1)
    return picture


def rate_curves(frame: pd.DataFrame, by: str = "rank", title: str = "") -> Picture:
    """Quality over the learning rate, a line of means for each rank and a dot for each seed. Raises: as `heat_map`."""
    _check_shown(frame, (by, "lr"))
    picture, axes = new_axes(*SIZE)
    metric = metric_of(frame, "validation_")
    several = frame[by].nunique()
    for number, (value, group) in enumerate(frame.groupby(by)):
        aside = 1.02 ** (number - (several - 1) / 2)  # dots of one rate beside each other, not on top
        _line(axes, group, "lr", metric, number, f"{SETTINGS.get(by, by)} {short(value)}", aside)
    axes.set(xscale="log", xlabel="learning rate (log)", ylabel=metric_name(metric))
    title = title or f"{metric_name(metric)} over the learning rate{f', by {SETTINGS.get(by, by)}' * (several > 1)}"
    rates = sorted(frame["lr"].unique())
    if len(rates) < 9:  # the rates that there are, not powers of ten that nobody trained at
        axes.set_xticks(rates, [short(rate) for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
    _finish(axes, several, title)
    return picture


def against_rank(frame: pd.DataFrame, metric: str = "") -> Picture:
    """Every seed as a dot over its rank, means joined; if rates vary, at the one that validates best for a rank.

    Raises: as `heat_map`.
    """
    _check_shown(frame, (*RANKS, "lr"))
    picture, axes = new_axes(*SIZE)
    metric = metric or metric_of(frame)
    chosen = best_rate(frame) if frame["lr"].nunique() > 1 else frame
    for number, (targets, group) in enumerate(chosen.groupby(chosen["targets"].fillna("-"))):
        _line(axes, group, "rank", metric, number, str(targets))
    ranks = sorted(chosen["rank"].dropna().unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [short(r) for r in ranks])
    axes.minorticks_off()
    axes.set(xlabel="rank r (log)", ylabel=metric_name(metric))
    tuned = ", each rank at its own best rate" if frame["lr"].nunique() > 1 else ""
    _finish(axes, chosen["targets"].nunique(), f"{metric_name(metric)} against rank, every seed a dot{tuned}")
    return picture


def pareto(frame: pd.DataFrame) -> Picture:
    """Quality against the parameters that train: every run a dot, and the Pareto front of the means.

    Raises: as `heat_map`.
    """
    _check_shown(frame, (*COSTS, "lr"))
    metric = metric_of(frame)
    picture, axes = new_axes(*SIZE)
    chosen = best_rate(frame, (*COSTS, "rank")) if frame["lr"].nunique() > 1 else frame
    names = [name for name in ("method", "targets") if _varies(frame, name)] or ["targets"]
    for number, (values, group) in enumerate(chosen.assign(targets=chosen["targets"].fillna("-")).groupby(names)):
        style = {"color": COLORS[number % 8], "marker": MARKERS[number % 8]}
        name = " ".join(map(str, values))
        axes.scatter(group["adapter_parameters"], factor(metric) * group[metric], s=22, label=name, **style)
    means = (chosen.groupby(list(COSTS), dropna=False)[metric].mean() * factor(metric)).groupby("adapter_parameters")
    front = means.max().cummax() if named_metric(metric).higher_is_better else means.min().cummin()
    look = {"color": GRAY, "linewidth": 1.2, "linestyle": "--", "label": "best mean so far"}
    axes.step(front.index, front.values, where="post", **look)
    axes.set(xscale="log", xlabel="parameters of the adapter (log)", ylabel=metric_name(metric))
    _finish(axes, 2, "Quality against what trains, every seed a dot")
    return picture


def best_rate(frame: pd.DataFrame, by: Sequence[str] = ("method", "targets", "rank")) -> pd.DataFrame:
    """The runs at the rate whose mean validation is best, for each choice of `by`: never chosen on test."""
    metric = metric_of(frame, "validation_")
    choice = frame.groupby([name for name in by if name in frame], dropna=False).ngroup()  # a method may have no rank
    means = frame.groupby([choice, frame["lr"]])[metric].mean().dropna().groupby(level=0)
    best = means.idxmax() if named_metric(metric).higher_is_better else means.idxmin()
    return frame[pd.MultiIndex.from_arrays([choice, frame["lr"]]).isin(best)].reset_index(drop=True)


def _line(axes: Any, group: pd.DataFrame, across: str, metric: str, number: int, label: str, aside: float = 1) -> None:
    """A line of means through the runs' dots, which are drawn a factor `aside` of their place."""
    color, marker = COLORS[number % 8], MARKERS[number % 8]
    axes.scatter(aside * group[across], factor(metric) * group[metric], s=16, color=color, marker=marker, alpha=0.6)
    means = group.groupby(across)[metric].mean() * factor(metric)
    axes.plot(means.index, means.values, color=color, marker=marker, markersize=4, linewidth=1.5, label=label)


def _cells(
    frame: pd.DataFrame, down: str, across: str, metric: str, rows: Sequence[Any], columns: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Means and numbers of runs, (rows, columns); NaN for no run yet."""
    found, shape = frame.groupby([down, across])[metric].agg(["mean", "count"]), (len(rows), len(columns))
    found = found.reindex(pd.MultiIndex.from_product([rows, columns]))
    means = factor(metric) * found["mean"].to_numpy(float).reshape(shape)
    return means, found["count"].fillna(0).to_numpy(int).reshape(shape)


def _write_cells(axes: Any, means: np.ndarray, counts: np.ndarray, size: float) -> None:
    """Each cell's mean and number of runs; nothing if letters would not fit."""
    low, high = np.nanmin(means), np.nanmax(means)
    width, height = (room / n for room, n in zip(_points(axes), reversed(means.shape), strict=True))
    size = min(size, width / 3, height / 1.2)  # points: "79.3" is 2.4 letters' heights wide
    if size < SMALLEST:
        return
    for (i, j), value in np.ndenumerate(means):
        if not math.isnan(value):
            words = f"{value:.1f}" + (f"\nn = {counts[i, j]}" if height > 2.8 * size and not _each(counts) else "")
            color = "white" if high > low and (value - low) / (high - low) > 0.5 else "#111111"
            axes.text(j, i, words, ha="center", va="center", fontsize=size, color=color)


def _each(counts: np.ndarray) -> str:
    """How many runs each cell has, if that is one number."""
    found = set(counts[counts > 0].tolist())
    return "" if len(found) != 1 else f", n = {found.pop()} each"


def _points(axes: Any) -> tuple[float, float]:
    """Width and height of axes in points."""
    box, (width, height) = axes.get_position(), axes.figure.get_size_inches()
    return 72 * box.width * width, 72 * box.height * height


def _name_ticks(axis: Any, values: Sequence[Any], size: float, room: float) -> None:
    """A name at each row or column, turned if they would touch, and only every second or third if even those would."""
    names, across = [short(value) for value in values], axis.axis_name == "x"
    turned = across and sum(0.6 * size * (len(name) + 1) for name in names) > room
    every = 1 if across and not turned else math.ceil(1.3 * size * len(names) / room)
    style: dict[str, Any] = {"fontsize": size, "rotation": 60 if turned else 0}
    if any(isinstance(value, str) for value in values):  # targets stand upright, broken where the row is too low
        names = [fill(name.replace(",", ", "), int(room / len(names) / (0.62 * size))) for name in names]
        style |= {"rotation": 90, "va": "center"}
    axis.set_ticks(range(0, len(names), every), names[::every], **style)


def _best(means: np.ndarray, rows: Any, columns: Any, down: str, across: str, metric: str) -> str:
    up = named_metric(metric).higher_is_better
    i, j = np.unravel_index(np.nanargmax(means) if up else np.nanargmin(means), means.shape)
    which = "highest" if up else "lowest"
    return f"{which} mean at {down} {short(rows[i])}, {across} {short(columns[j])}"


def short(value: Any) -> str:
    """A setting as it stands at an axis: 0.0023, 16 or q,v."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return str(value)
    return f"{value:g}" if len(f"{value:g}") < 7 else f"{value:.2g}"


def _finish(axes: Any, several: int, title: str, size: float = 9) -> None:
    """Title, letters of one size, a grid behind the lines, and a legend if there is more than one line."""
    axes.set_title(title, fontsize=size + 1)
    tidy(axes)
    axes.tick_params(labelsize=size)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(size)
    if several > 1:
        axes.legend(fontsize=size - 1, frameon=False, loc="best")

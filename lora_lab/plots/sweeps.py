"""Pictures of many runs: heat maps, curves over the learning rate, accuracy against rank, quality against parameters.

Every seed is drawn, not only a mean. Titles say what was found, and nothing that the dots do not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, "#56B4E9", "#000000", GREY)
MARKERS = "os^Dv<>p"
HEAT = LinearSegmentedColormap.from_list("heat", ["#f7fbff", "#6baed6", "#08306b"])  # light to dark: also in grey
NAMES = {
    "accuracy": "test accuracy (%)",
    "validation_accuracy": "validation accuracy (%)",
    "perplexity": "test perplexity",
    "validation_perplexity": "validation perplexity",
    "lr": "learning rate",
    "rank": "rank r",
    "alpha": "alpha",
    "targets": "targets",
    "adapter_parameters": "parameters of the adapter",
}


def metric_of(frame: pd.DataFrame, split: str = "") -> str:
    """accuracy, or perplexity where that is what was measured; of a split: validation_accuracy."""
    return f"{split}{'accuracy' if 'accuracy' in frame else 'perplexity'}"


def pictures(frame: pd.DataFrame) -> dict[str, Picture]:
    """Those of the pictures that these runs vary enough for, by name."""
    made: dict[str, Picture] = {}
    if frame.empty:
        return made
    varies = {name for name in ("rank", "alpha", "lr") if name in frame and frame[name].nunique() > 1}
    if {"alpha", "lr"} <= varies:
        made["alpha_lr"] = heat_map(frame, "alpha", "lr")
    if {"rank", "lr"} <= varies:
        made["rank_lr"] = heat_map(frame, "rank", "lr")
        made["lr_curves"] = rate_curves(frame)
    if "rank" in varies:
        made["rank"] = against_rank(frame)
    if frame["adapter_parameters"].nunique() > 1:
        made["pareto"] = pareto(frame)
    return made or {"rank": against_rank(frame)}


def heat_map(frame: pd.DataFrame, down: str, across: str, metric: str = "", title: str = "") -> Picture:
    """A cell for each pair of values: the mean over seeds in the cell, and how many seeds; empty cells are to come."""
    metric = metric or metric_of(frame, "validation_")
    rows, columns = sorted(frame[down].unique()), sorted(frame[across].unique())
    picture = Picture(figsize=(1.6 + 0.95 * len(columns), 1.5 + 0.5 * len(rows)), dpi=110, layout="constrained")
    picture.set_facecolor("white")
    draw_heat(picture.subplots(), frame, down, across, metric, rows, columns, title)
    return picture


def draw_heat(
    axes: Any, frame: pd.DataFrame, down: str, across: str, metric: str, rows: Sequence[Any], columns: Sequence[Any],
    title: str = "",
) -> None:  # fmt: skip
    """The heat map's artists on axes of their own; `rows` and `columns` are the whole grid, also what is to come."""
    means, counts = _cells(frame, down, across, metric, rows, columns)
    if (~np.isnan(means)).any():
        low, high = np.nanmin(means), np.nanmax(means)
        axes.imshow(means, cmap=HEAT, vmin=low, vmax=high if high > low else low + 1, aspect="auto", origin="lower")
        for (i, j), value in np.ndenumerate(means):
            if not math.isnan(value):
                dark = high > low and (value - low) / (high - low) > 0.5
                words = f"{value:.1f}" + (f"\nn = {counts[i, j]}" if counts[i, j] > 1 else "")
                axes.text(j, i, words, ha="center", va="center", fontsize=8, color="white" if dark else "#111111")
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), facecolor="#eeeeee")
    axes.set_xticks(range(len(columns)), [_short(c) for c in columns], fontsize=8)
    axes.set_yticks(range(len(rows)), [_short(r) for r in rows], fontsize=8)
    axes.set_xlabel(NAMES.get(across, across))
    axes.set_ylabel(NAMES.get(down, down))
    axes.set_title(
        title or f"{NAMES.get(metric, metric)}: {_best(means, rows, columns, down, across, metric)}", fontsize=9
    )


def rate_curves(frame: pd.DataFrame, by: str = "rank", metric: str = "", title: str = "") -> Picture:
    """Quality over the learning rate, a line of means for each rank and a dot for each seed."""
    metric = metric or metric_of(frame, "validation_")
    picture, axes = _axes()
    for number, (value, group) in enumerate(frame.groupby(by)):
        _line(axes, group, "lr", metric, number, f"{NAMES.get(by, by)} {_short(value)}")
    axes.set(xscale="log", xlabel=NAMES["lr"] + " (log)", ylabel=NAMES[metric])
    axes.set_title(title or f"{NAMES[metric]} over the learning rate, by {NAMES.get(by, by)}", fontsize=10)
    _legend(axes, frame[by].nunique())
    return picture


def against_rank(frame: pd.DataFrame, metric: str = "", title: str = "") -> Picture:
    """Every seed as a dot over its rank, means joined; where rates vary, at the one that validates best for a rank."""
    metric = metric or metric_of(frame)
    picture, axes = _axes()
    chosen = best_rate(frame) if frame["lr"].nunique() > 1 else frame
    for number, (targets, group) in enumerate(chosen.groupby(chosen["targets"].fillna("-"))):
        _line(axes, group, "rank", metric, number, str(targets))
    ranks = sorted(chosen["rank"].dropna().unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [_short(r) for r in ranks])
    axes.minorticks_off()
    axes.set(xlabel="rank r (log)", ylabel=NAMES[metric])
    tuned = ", each rank at its own best rate" if frame["lr"].nunique() > 1 else ""
    axes.set_title(title or f"{NAMES[metric]} against rank, every seed a dot{tuned}", fontsize=10)
    _legend(axes, chosen["targets"].nunique())
    return picture


def pareto(frame: pd.DataFrame, metric: str = "", title: str = "") -> Picture:
    """Quality against the parameters that train: every run a dot, and the line of what nothing smaller beats."""
    metric = metric or metric_of(frame)
    picture, axes = _axes()
    chosen = best_rate(frame) if frame["lr"].nunique() > 1 else frame
    for number, (targets, group) in enumerate(chosen.groupby(chosen["targets"].fillna("-"))):
        style = {"color": COLOURS[number % 8], "marker": MARKERS[number % 8]}
        axes.scatter(group["adapter_parameters"], _scaled(group, metric), s=22, label=str(targets), **style)
    means = chosen.groupby("adapter_parameters")[metric].mean().sort_index() * _factor(metric)
    front = means.cummin() if "perplexity" in metric else means.cummax()
    axes.step(
        front.index, front.values, where="post", color=GREY, linewidth=1.2, linestyle="--", label="best mean so far"
    )
    axes.set(xscale="log", xlabel=NAMES["adapter_parameters"] + " (log)", ylabel=NAMES[metric])
    axes.set_title(title or "Quality against what trains, every seed a dot", fontsize=10)
    _legend(axes, 2)
    return picture


def best_rate(frame: pd.DataFrame, by: Sequence[str] = ("method", "targets", "rank")) -> pd.DataFrame:
    """The runs at the rate whose mean validation is best, for each choice of `by`: never chosen on test."""
    metric = metric_of(frame, "validation_")
    keys = [name for name in by if frame[name].notna().all()]
    means = frame.groupby([*keys, "lr"], as_index=False)[metric].mean()
    places = means.groupby(keys)[metric].idxmin() if "perplexity" in metric else means.groupby(keys)[metric].idxmax()
    return frame.merge(means.loc[places, [*keys, "lr"]], on=[*keys, "lr"])


def _axes() -> tuple[Picture, Any]:
    picture = Picture(figsize=(6.4, 3.8), dpi=110, layout="constrained", facecolor="white")
    axes = picture.subplots()
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_facecolor("white")
    axes.spines[["top", "right"]].set_visible(False)
    return picture, axes


def _line(axes: Any, group: pd.DataFrame, across: str, metric: str, number: int, label: str) -> None:
    colour, marker = COLOURS[number % 8], MARKERS[number % 8]
    axes.scatter(group[across], _scaled(group, metric), s=16, color=colour, marker=marker, alpha=0.6)
    means = group.groupby(across)[metric].mean() * _factor(metric)
    axes.plot(means.index, means.values, color=colour, marker=marker, markersize=4, linewidth=1.5, label=label)


def _cells(
    frame: pd.DataFrame, down: str, across: str, metric: str, rows: Sequence[Any], columns: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Means and numbers of runs, (rows, columns); nan where there is no run yet."""
    means, counts = np.full((len(rows), len(columns)), np.nan), np.zeros((len(rows), len(columns)), int)
    if len(frame):
        for (r, c), cell in frame.groupby([down, across])[metric]:  # type: ignore[misc]
            if r in rows and c in columns:
                place = rows.index(r), columns.index(c)
                means[place], counts[place] = cell.mean() * _factor(metric), len(cell)
    return means, counts


def _best(means: np.ndarray, rows: Any, columns: Any, down: str, across: str, metric: str) -> str:
    if np.isnan(means).all():
        return "nothing yet"
    flat = np.nanargmin(means) if "perplexity" in metric else np.nanargmax(means)
    i, j = np.unravel_index(flat, means.shape)
    return f"highest mean at {down} {_short(rows[i])}, {across} {_short(columns[j])}".replace(
        "highest", "lowest" if "perplexity" in metric else "highest"
    )


def _scaled(group: pd.DataFrame, metric: str) -> Any:
    return group[metric] * _factor(metric)


def _factor(metric: str) -> float:
    return 100 if "accuracy" in metric else 1


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


def _legend(axes: Any, several: int) -> None:
    if several > 1:
        axes.legend(fontsize=8, frameon=False, loc="best")

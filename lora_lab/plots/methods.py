"""Pictures of a comparison of methods: quality against what trains, rates tried, memory.

All are made from what `lora-lab compare --json` prints, of a comparison that may still be going on; `reference` is
another one, drawn pale behind it. Every seed is a dot; a title says what the verdicts allow to be said, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from textwrap import fill
from typing import Any

from lora_lab.plots import GREY, PALE, RED, Picture
from lora_lab.plots.compared import (
    LOWER,
    SHARES,
    Found,
    behind_words,
    capital,
    each_of,
    finish,
    label_of,
    look_of,
    name_of,
    new_axes,
    rate_said,
    scaled,
    tidy,
    trainable,
    tried_of,
    whole_powers,
)
from lora_lab.plots.costs import memory
from lora_lab.plots.labels import name_dots

__all__ = ["finding", "memory", "quality", "rate_curves"]


# ---- what may be said


def finding(found: Found) -> str:
    """One sentence: what the verdicts say of LoRA against full fine-tuning; without them, who has the best mean."""
    rows = {row["method"]: row for row in reversed(found["methods"])}  # of several the first
    verdict = ((rows.get("lora") or {}).get("against") or {}).get("full")
    if not verdict or "full" not in rows:
        return _best_mean(found)
    lora = label_of(rows["lora"])
    costs = f"{100 * trainable(rows['lora']) / max(1, trainable(rows['full'])):.2g} % of the parameters"
    within = f" within {scaled(found['margin'], found['metric']):g} points" if found["metric"] in SHARES else ""
    return {
        "equivalent": f"{lora} is equivalent to full fine-tuning{within} at {costs}",
        "better": f"{lora} is better than full fine-tuning, at {costs}",
        "worse": f"Full fine-tuning is better than {lora}, which trains {costs}",
    }.get(verdict["kind"], f"{lora} ({costs}) vs full fine-tuning: undecided")


def _best_mean(found: Found) -> str:
    metric = found["metric"]
    means = {label_of(row): fmean(values) for row in found["methods"] if (values := each_of(row, metric))}
    if not means:
        return "No method has been scored yet"
    best = (min if metric in LOWER else max)(means, key=means.__getitem__)
    return f"{best} has the best mean of {len(means)}; no verdict on LoRA against full fine-tuning yet"


# ---- quality


def quality(found: Found, reference: Found | None = None) -> Picture:
    """Test quality against the numbers that train (log), every seed a dot, the mean a bar with the method's name."""
    metric = found["metric"]
    picture, axes = new_axes(7.2, 4.4)
    behind = _draw_seeds(axes, reference["methods"], metric, pale=True) if reference else []
    means = _draw_seeds(axes, found["methods"], metric, pale=False)
    axes.set(xscale="log", xlabel="numbers that train, head included (log)", ylabel=f"test {name_of(metric)}")
    axes.margins(0.02, 0.08)
    whole_powers(axes)
    seeds = max((len(each_of(row, metric)) for row in found["methods"]), default=0)
    what = f"every seed a dot (at most {seeds}), the mean a bar; each method at the rate that validation chose"
    finish(axes, finding(found), f"{what}{behind_words(reference)}")
    _name_means(axes, means, behind, found["methods"], reference)
    picture.alt = f"{finding(found)}. {in_words(found)}"
    return picture


def _draw_seeds(axes: Any, rows: Sequence[Found], metric: str, *, pale: bool) -> list[tuple[float, float]]:
    """The dots of each method that has any; returns (numbers, mean) of each row, nan for those without."""
    means: list[tuple[float, float]] = []
    for row in rows:
        values = [scaled(value, metric) for value in each_of(row, metric)]
        colour, marker = look_of(row)
        at, mean = max(1, trainable(row)), fmean(values) if values else math.nan
        means.append((at, mean))
        if not values:
            continue
        style = {"facecolor": "none", "edgecolor": PALE} if pale else {"color": colour, "alpha": 0.55}
        axes.scatter([at] * len(values), values, s=26, marker=marker, zorder=1 if pale else 3, linewidth=1, **style)
        axes.plot([at], [mean], "_", color=PALE if pale else colour, markersize=14, markeredgewidth=2, zorder=2)
    return means


def _name_means(
    axes: Any, means: Sequence[tuple[float, float]], behind: Sequence[tuple[float, float]], rows: Sequence[Found],
    reference: Found | None,
) -> None:  # fmt: skip
    """Names beside the means; those of the reference only where the method is not among the live ones."""
    live = [(m, label_of(row), "#222222") for m, row in zip(means, rows, strict=True) if not math.isnan(m[1])]
    there = {name for _, name, _ in live}
    old = zip(behind, (reference or {"methods": []})["methods"], strict=True)
    pale = [(m, label_of(row), GREY) for m, row in old if not math.isnan(m[1]) and label_of(row) not in there]
    named = sorted(live, key=lambda one: one[0][1], reverse=True) + pale
    dots = [(float(x), float(y)) for c in axes.collections for x, y in c.get_offsets()]
    name_dots(axes, [m for m, _, _ in named], [n for _, n, _ in named], dots, colours=[c for _, _, c in named])


# ---- rates


def rate_curves(found: Found, reference: Found | None = None) -> Picture:
    """A small picture for each method: validation over the rates tried (log), the others pale, the chosen ringed."""
    rows, metric = [row for row in found["methods"] if tried_of(row)], found["metric"]
    across = min(len(rows), 5)
    down = -(-len(rows) // across)
    picture = Picture(figsize=(max(4.2, 1.75 * across), 0.9 + 1.85 * down), dpi=110, layout="constrained")
    picture.set_facecolor("white")
    grid = picture.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(rows) :]:
        axes.set_visible(False)
    old = {label_of(row): row for row in (reference or {"methods": []})["methods"]}
    for axes, row in zip(grid.flat, rows, strict=False):
        for other in rows:
            _rate_line(axes, other, metric, color="#dddddd", linewidth=0.8, zorder=1)
        if label_of(row) in old:
            _rate_line(axes, old[label_of(row)], metric, color=PALE, linewidth=2.5, linestyle=":", zorder=2)
        _own_rates(axes, row, metric)
    said, width = _rates_said(rows), picture.get_figwidth()
    picture.suptitle(fill(capital(said), int(11.8 * width)), fontsize=10)
    below = f"learning rate (log); the ring is the one that validation chose{behind_words(reference)}"
    picture.supxlabel(fill(below, int(13 * width)), fontsize=8)
    picture.supylabel(f"validation {name_of(metric)}", fontsize=8)
    picture.alt = f"{said}. {rates_in_words(found)}"
    return picture


def _own_rates(axes: Any, row: Found, metric: str) -> None:
    colour, marker = look_of(row)
    _rate_line(axes, row, metric, color=colour, linewidth=1.6, marker=marker, markersize=3.5, zorder=3)
    axes.set_xscale("log")
    rate = rate_said(row["lr"]) + (", edge" if row.get("edge") else "") if row.get("lr") else "none chosen yet"
    axes.set_title(f"{label_of(row)}\n{rate}", fontsize=8, color=RED if row.get("edge") else "#222222")
    chosen = [value for lr, value in tried_of(row) if lr == row.get("lr")]
    if chosen:
        place = (row["lr"], scaled(chosen[0], metric))
        axes.plot(*place, "o", color=RED, markersize=9, fillstyle="none", markeredgewidth=1.5, zorder=4)
    axes.tick_params(labelsize=7)
    tidy(axes)


def _rate_line(axes: Any, row: Found, metric: str, **style: Any) -> None:
    tried = tried_of(row)
    axes.plot([lr for lr, _ in tried], [scaled(value, metric) for _, value in tried], **style)


def _rates_said(rows: Sequence[Found]) -> str:
    """How far apart the chosen rates lie, which is why each method is tuned for itself."""
    chosen = {label_of(row): row["lr"] for row in rows if row.get("lr")}
    edges = [label_of(row) for row in rows if row.get("edge")]
    if not chosen:
        return "No rate has been chosen yet"
    low, high = min(chosen, key=chosen.__getitem__), max(chosen, key=chosen.__getitem__)
    times = chosen[high] / chosen[low]
    alike = "All have about the same best rate"
    said = f"best rate of {high}: {times:,.0f} times that of {low}" if times >= 1.5 else alike
    return f"{said}; at the edge of the grid: {', '.join(edges)}" if edges else said


# ---- in words


def in_words(found: Found) -> str:
    """Every method in a sentence: what trains, its mean, its verdict against full fine-tuning."""
    sentences = []
    for row in found["methods"]:
        values = [scaled(value, found["metric"]) for value in each_of(row, found["metric"])]
        if not values:
            sentences.append(f"{label_of(row)}: not scored.")
            continue
        mean = f"{name_of(found['metric'])} {fmean(values):.1f}, seeds {min(values):.1f} to {max(values):.1f}"
        full = (row.get("against") or {}).get("full")
        against = f"; against full: {full['kind']}" if full else ""
        sentences.append(f"{label_of(row)}: {trainable(row):,} train, {mean}{against}.")
    return " ".join(sentences)


def rates_in_words(found: Found) -> str:
    """Every method in a sentence: the rate chosen, and of how many."""
    sentences = []
    for row in found["methods"]:
        if row.get("lr") and tried_of(row):
            edge = " (edge)" if row.get("edge") else ""
            sentences.append(f"{label_of(row)}: {rate_said(row['lr'])}{edge} of {len(tried_of(row))} rates.")
    return " ".join(sentences)

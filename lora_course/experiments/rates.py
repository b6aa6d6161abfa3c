"""Lesson 15: interpolated best rates, their ratio (LoRA to full fine-tuning), and what a larger batch costs.

Each tuning seed gives one best rate per method; ratios are paired by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any

import numpy as np

from lora_lab.experiments.statistics import mean_interval
from lora_lab.lazy import pd

Ratios = dict[tuple[str, str, str], tuple[float, float, float]]


def parabola(losses: Mapping[float, float]) -> np.polynomial.Polynomial | None:
    """Fit a parabola over log2(rate) to the lowest loss and both neighbors. If a neighbor is missing, return None."""
    rates = sorted(losses)
    at = min(range(len(rates)), key=lambda i: losses[rates[i]])
    near = rates[at - 1 : at + 2] if 0 < at < len(rates) - 1 else []
    return np.polynomial.Polynomial.fit(np.log2(near), [losses[rate] for rate in near], 2) if near else None


def best_rate(losses: Mapping[float, float]) -> float:
    """Return log2 of the best rate, given the loss at each rate; nan if the first or last rate has the lowest loss."""
    return nan if (curve := parabola(losses)) is None else float(curve.deriv().roots()[0])


def best_rates(row: Mapping[str, Any]) -> list[float]:
    """Return `best_rate` for each tuning seed of a method's row in a comparison."""
    tried = [one for one in row["tried"] if one["each"]]
    return [best_rate({one["lr"]: one["each"][seed][1] for one in tried}) for seed in range(len(tried[0]["each"]))]


def times(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of two methods' best rates (log2, one for each seed), and its 95% interval over seeds."""
    mean, *ends = mean_interval([a - b for a, b in zip(over, under, strict=True)])
    low, high = (nan if end is None else 2**end for end in ends)
    return 2**mean, low, high


def ratios(comparisons: Iterable[Mapping[str, Any]], runs: pd.DataFrame) -> Ratios:
    """Return {(model, task, targets): `times`, LoRA over full fine-tuning}; `runs` are those from docs/rates.py."""
    found = {}
    for comparison in comparisons:
        rows = {row["label"]: row for row in comparison["methods"]}
        for targets in ("q,v", "all-linear"):
            pair = best_rates(rows[f"LoRA r8 {targets}"]), best_rates(rows["full"])
            found[comparison["model"], comparison["task"], targets] = times(*pair)
    cells = runs[runs["part"] == "smollm2"].fillna({"targets": "full"}).groupby(["targets", "seed"])
    best = cells.apply(lambda own: best_rate(dict(zip(own["lr"], own["loss"], strict=True))))
    for targets in ("all-linear", "q,v"):
        found["smollm2", "restaurants", targets] = times(best[targets].tolist(), best["full"].tolist())
    return found


def batch_growth(runs: pd.DataFrame) -> dict[str, list[float]]:
    """Return how much each method's lowest loss grows from batch 8 to 32, in nats, for each seed."""
    lowest_losses = runs[runs["part"] == "batch"].groupby(["method", "batch", "seed"])["loss"].min()
    return {method: (lowest_losses[method, 32] - lowest_losses[method, 8]).tolist() for method in ("lora", "full")}

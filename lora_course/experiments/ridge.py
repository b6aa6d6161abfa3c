"""How the best learning rate moves with alpha and rank: its slope in octaves of rate for each octave of the setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lora_lab.errors import BadValue

LEARNED = 0.55
"""A cell whose mean test accuracy is below this has not learned, or collapsed: it tells nothing about the best rate."""


class Slope(NamedTuple):
    """d log2(best rate) / d log2(setting), with its 95 % interval.

    At -1 the setting times the rate decides, at -1/2 the setting times the square of the rate, at 0 the rate alone.
    """

    slope: float
    low: float
    high: float


def best_rate_slopes(
    runs: pd.DataFrame, settings: Sequence[str] = ("alpha", "rank"), draws: int = 1000, rows: int = 2000
) -> dict[str, Slope]:
    r"""Fit accuracy = h - c (log2 lr - m - sum_s k_s log2 s)^2 to the cells that learned; return k_s for each setting.

    Each combination of settings has a height h of its own, and all share the curvature c. The interval is a bootstrap
    over the seeds of each cell, with the noise of `rows` test rows added; draws without a peak are left
    out. A cell of one seed borrows the spread of the others. The interval does not hold that another curve might
    fit better. `runs` is a frame with the columns `lr`, `accuracy` and those of `settings`; all else must be equal.

    Raises: BadValue where fewer than two combinations have learned at three rates or more, where a setting does not
    vary or varies only with another, where no cell has a second seed, and where accuracy has no peak over the rate.
    """
    by = [*settings, "lr"]
    learned = runs[runs.groupby(by).accuracy.transform("mean") > LEARNED]
    rates = learned.groupby(list(settings)).lr.nunique()
    if (rates >= 3).sum() < 2:
        raise BadValue(f"{len(runs)} runs have no two values of {', '.join(settings)} that learned at three rates each")
    kept = learned.groupby(by).accuracy.apply(np.array)
    s = np.log2(np.array(kept.index.tolist(), dtype=float))  # (cells, settings + 1), the rate last
    x, s = s[:, -1:], s[:, :-1]
    heights = (np.unique(s, axis=0, return_inverse=True)[1].reshape(-1, 1) == np.arange(len(rates))).astype(float)
    weights = np.sqrt(kept.map(len).to_numpy())
    design = np.c_[x * x, x * s, x, heights] * weights[:, None]
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise BadValue(f"{' and '.join(settings)} cannot be told apart in {len(runs)} runs: vary each by itself")

    def vertices(means: np.ndarray) -> np.ndarray:
        """k_s of each column of means, (settings, columns); a column that opens upward is left out."""
        solved = np.linalg.lstsq(design, means * weights[:, None], rcond=None)[0]
        solved = solved[:, solved[0] < 0]
        return -solved[1 : 1 + len(settings)] / (2 * solved[0])

    found = vertices(np.array([[cell.mean()] for cell in kept]))
    if not found.size:
        raise BadValue(f"accuracy has no peak over the rates of {len(runs)} runs: add rates below and above the best")
    repeated = [cell for cell in kept if len(cell) > 1]
    if not repeated:
        raise BadValue(f"{len(runs)} runs have one seed each, which does not show how far luck moves them: add seeds")
    spread = np.sqrt(sum(len(cell) * cell.var() for cell in repeated) / sum(len(cell) - 1 for cell in repeated))
    random = np.random.default_rng(0)
    means = np.array([_redrawn(cell, spread, draws, random) for cell in kept])
    noise = np.sqrt(means * (1 - means) / rows) / weights[:, None]
    ends = np.percentile(vertices(means + noise * random.standard_normal(means.shape)), [2.5, 97.5], axis=1).T
    return {name: Slope(float(k), *map(float, end)) for name, k, end in zip(settings, found[:, 0], ends, strict=True)}


def _redrawn(cell: np.ndarray, spread: float, draws: int, random: np.random.Generator) -> np.ndarray:
    """So many means of a cell, as other seeds might give them; a cell of one seed has the spread of the others."""
    n = len(cell)
    if n == 1:
        return np.array(cell[0] + spread * random.standard_normal(draws))
    # Means of n drawn from these n vary by (n - 1) / n of what means of n new seeds would: half as much for two.
    redrawn = random.choice(cell, (draws, n)).mean(axis=1)
    return np.array(cell.mean() + np.sqrt(n / (n - 1)) * (redrawn - cell.mean()))

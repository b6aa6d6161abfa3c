"""Tune each method's learning rate on validation: the same number of rates for all, and more at an edge.

A method with another method's rate, or with fewer tries, looks worse than it is. So every method has a geometric grid
around sensible rates. If the best is at an end of its grid, `growth` more rates beyond that end are tried. If the best
is still at the end, it is marked as an edge: a better rate may lie beyond.

The tuning seed is not one of the final seeds, so luck in choosing is not scored again. The test split is never used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from pathlib import Path
from typing import Any

from lora_lab.errors import Failed
from lora_lab.experiments.sweep import Sweep
from lora_lab.methods.base import Method
from lora_lab.metrics import main_metric, metric
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run

SEED = 1000  # of tuning runs
RATES, GROWTH = 4, 2  # rates in a grid, and how many may be added at one end


@dataclass(frozen=True)
class Axis:
    """The setting to tune: the recipe's "lr", or an option of the method. Values are lowest * factor^k."""

    lowest: float
    factor: float = 2.0
    name: str = "lr"

    def values(self, first: int, n: int) -> list[float]:
        """Return n values starting at k = first, to two digits."""
        return [float(f"{self.lowest * self.factor**k:.2g}") for k in range(first, first + n)]

    def grid(self, n: int) -> list[float]:
        """Return n values around the middle of the first four."""
        return self.values((RATES - n) // 2, n)

    def beyond(self, n: int, growth: int, *, above: bool) -> list[float]:
        """Return the values beyond one end of `grid(n)`."""
        first = (RATES - n) // 2
        return self.values(first + n if above else first - growth, growth)

    def set(self, recipe: Recipe, value: float) -> Recipe:
        """Return the recipe with this value."""
        if self.name == "lr":
            return replace(recipe, lr=value)
        return replace(recipe, method=replace(recipe.method, **{self.name: value}))  # type: ignore[type-var]


WIDE = sqrt(10)  # for methods whose good rates are less well known
AXES = {
    "full": Axis(2.5e-5),
    "lora": Axis(5e-4),
    "bottleneck": Axis(5e-4),
    "head": Axis(0.1, WIDE),
    "bitfit": Axis(1e-3, WIDE),
    "ia3": Axis(10**-2.5, WIDE),
    "lora-xs": Axis(10**-2.5, WIDE),
    "vera": Axis(1e-2, WIDE),
    "tinylora": Axis(1e-3, WIDE),
    "prompt": Axis(10**-2.5, WIDE),
    "ptuning": Axis(1e-3, WIDE),
    "prefix": Axis(1e-2, WIDE),
    "probe": Axis(10.0, 10.0, "l2"),  # has no learning rate; its penalty is tuned
}
"""Each method's grid; other methods use LoRA's."""


def axis_of(method: Method) -> Axis:
    """Return the setting to tune for a method, and its values."""
    return AXES.get(method.name, AXES["lora"])


@dataclass(frozen=True)
class Tried:
    """One value with its run's validation metric and loss; None if the run failed."""

    value: float
    validation: float | None = None
    loss: float = inf


@dataclass(frozen=True)
class Tuning:
    """All values tried, in order, and the seconds of all runs."""

    axis: Axis
    tried: tuple[Tried, ...]
    metric: str
    seconds: float

    @property
    def best(self) -> Tried:
        """The best value on validation; ties are broken by loss."""
        sign = -1 if metric(self.metric).higher_is_better else 1
        there = (one for one in self.tried if one.validation is not None)
        return min(there, key=lambda one: (sign * (one.validation or 0.0), one.loss))

    @property
    def edge(self) -> bool:
        """Whether the best is at an end of the tried values. Next to a failed value it is not an edge."""
        return self.best in (self.tried[0], self.tried[-1])

    def chosen(self, recipe: Recipe) -> Recipe:
        """Return the recipe at the best value."""
        return self.axis.set(recipe, self.best.value)


def tune(recipe: Recipe, store: str | Path, *, rates: int = RATES, growth: int = GROWTH, **how: Any) -> Tuning:
    """Choose the learning rate (or the setting in `AXES`) of a recipe on validation.

    rates    number of values in the grid
    growth   number of values added if the best is at an end
    how      options of `Sweep`
    Raises: as `sweep`; Failed if every value failed.
    """
    axis, sweep, runs = axis_of(recipe.method), Sweep(store, scored=False, **how), dict[float, Run]()

    def tried(values: Sequence[float]) -> Tuning:
        recipes = [replace(axis.set(recipe, value), seed=SEED, validations=1) for value in values]
        swept = sweep.run(recipes)
        if len(swept) < len(recipes):
            raise Failed("stopped before every value was tried; the same call resumes")
        runs.update(zip(values, swept.runs, strict=True))
        return _tuning(axis, runs)

    found = tried(axis.grid(rates))
    if rates > 1 and growth and found.edge:
        found = tried(axis.beyond(rates, growth, above=found.best == found.tried[-1]))
    return found


def _tuning(axis: Axis, runs: Mapping[float, Run]) -> Tuning:
    """Return the outcome of these runs. Raises: Failed if none finished."""
    seen = {value: run.history["validation"][-1] for value, run in sorted(runs.items()) if run.status in FINISHED}
    if not seen:
        raise Failed(next(iter(runs.values())).error or "no run finished")
    name = main_metric(next(iter(seen.values())))
    tried = (
        Tried(value, seen[value][name], seen[value]["loss"]) if value in seen else Tried(value)
        for value in sorted(runs)
    )
    return Tuning(axis, tuple(tried), name, sum(run.seconds for run in runs.values()))

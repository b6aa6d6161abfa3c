"""The rate of each method, chosen on validation: the same number of rates for all, and as many more at an edge.

A method that was given another method's rate, or fewer tries, looks worse than it is. So every method has a geometric
grid around rates that are sensible for it. If the best is at an end of its grid, `growth` more rates beyond that end
are tried; a best rate at the end of even those is an edge, and a better one may lie beyond.

The tuning seed is none of the final ones, so luck in choosing is not scored again. The test split is never looked at.
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

SEED = 1000  # of the runs that choose
RATES, GROWTH = 4, 2  # rates of a grid, and those that may be added at one end


@dataclass(frozen=True)
class Axis:
    """What is tuned of a method: "lr" of the recipe, or an option of the method. Values are lowest * factor^k."""

    lowest: float
    factor: float = 2.0
    name: str = "lr"

    def values(self, first: int, n: int) -> list[float]:
        """n values from the k = first one on, to two digits."""
        return [float(f"{self.lowest * self.factor**k:.2g}") for k in range(first, first + n)]

    def grid(self, n: int) -> list[float]:
        """n values around the middle of the first four."""
        return self.values((RATES - n) // 2, n)

    def beyond(self, n: int, growth: int, *, above: bool) -> list[float]:
        """The values that come next to `grid(n)` at one of its ends."""
        first = (RATES - n) // 2
        return self.values(first + n if above else first - growth, growth)

    def set(self, recipe: Recipe, value: float) -> Recipe:
        """The recipe with this value."""
        if self.name == "lr":
            return replace(recipe, lr=value)
        return replace(recipe, method=replace(recipe.method, **{self.name: value}))  # type: ignore[type-var]


WIDE = sqrt(10)  # for methods whose good rates are known less well
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
    "probe": Axis(10.0, 10.0, "l2"),  # has no rate: the strength of its penalty
}
"""Where each method's grid begins; one that is not here begins as LoRA does."""


def axis_of(method: Method) -> Axis:
    """What is tuned of a method, and over which values."""
    return AXES.get(method.name, AXES["lora"])


@dataclass(frozen=True)
class Tried:
    """One value, with the validation metric and the loss of its run; None if that failed."""

    value: float
    validation: float | None = None
    loss: float = inf


@dataclass(frozen=True)
class Tuning:
    """What was tried, in the order of the values; seconds of all runs."""

    axis: Axis
    tried: tuple[Tried, ...]
    metric: str
    seconds: float

    @property
    def best(self) -> Tried:
        """The best on validation; of equals the one with the lower loss."""
        sign = -1 if metric(self.metric).higher_is_better else 1
        there = (one for one in self.tried if one.validation is not None)
        return min(there, key=lambda one: (sign * (one.validation or 0.0), one.loss))

    @property
    def edge(self) -> bool:
        """Whether the best is at an end of all that was tried. A value that failed is an end found, not an edge."""
        return self.best in (self.tried[0], self.tried[-1])

    def chosen(self, recipe: Recipe) -> Recipe:
        """The recipe at the best value."""
        return self.axis.set(recipe, self.best.value)


def tune(recipe: Recipe, store: str | Path, *, rates: int = RATES, growth: int = GROWTH, **how: Any) -> Tuning:
    """Choose the rate of the recipe's method (or what is tuned of it) on validation.

    rates    values of the grid
    growth   values added if the best is at an end of it
    how      as `Sweep` takes it
    Raises: as `sweep`; Failed if every value failed.
    """
    axis, sweep, runs = axis_of(recipe.method), Sweep(store, scored=False, **how), dict[float, Run]()

    def tried(values: Sequence[float]) -> Tuning:
        recipes = [replace(axis.set(recipe, value), seed=SEED, validations=1) for value in values]
        swept = sweep.run(recipes)
        if len(swept) < len(recipes):
            raise Failed("stopped before every value was tried; the same call goes on where it was")
        runs.update(zip(values, swept.runs, strict=True))
        return _tuning(axis, runs)

    found = tried(axis.grid(rates))
    if rates > 1 and growth and found.edge:
        found = tried(axis.beyond(rates, growth, above=found.best == found.tried[-1]))
    return found


def _tuning(axis: Axis, runs: Mapping[float, Run]) -> Tuning:
    """The outcome of these runs by value. Raises: Failed if none finished."""
    seen = {value: run.history["validation"][-1] for value, run in sorted(runs.items()) if run.status in FINISHED}
    if not seen:
        raise Failed(next(iter(runs.values())).error or "no run finished")
    name = main_metric(next(iter(seen.values())))
    tried = (
        Tried(value, seen[value][name], seen[value]["loss"]) if value in seen else Tried(value)
        for value in sorted(runs)
    )
    return Tuning(axis, tuple(tried), name, sum(run.seconds for run in runs.values()))

"""The rate of each method, chosen on validation: the same number of rates for all, and as many more at an edge.

A method that was given another method's rate, or fewer tries, looks worse than it is. So every method gets a geometric
grid around rates that are sensible for it, and where the best lies at an end of its grid, `growth` more rates beyond
that end. A best rate that is at the end of even those is called an edge: a better one may lie beyond.

The seed of tuning is none of the final ones, so what was chosen by luck is not scored with the same luck. The test
split is never looked at here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from pathlib import Path
from typing import Any

from lora_lab.errors import Failed
from lora_lab.experiments.sweep import sweep
from lora_lab.methods.base import Method
from lora_lab.training.metrics import main_metric
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED

SEED = 1000  # of the runs that choose
RATES, GROWTH = 4, 2  # rates of a grid, and those that may be added at one end


@dataclass(frozen=True)
class Axis:
    """What is tuned of a method: "lr" of the recipe, or an option of the method; values are lowest * factor^k."""

    lowest: float
    factor: float = 2.0
    name: str = "lr"

    def value(self, k: int) -> float:
        """The k-th value to two digits; k may be negative."""
        return float(f"{self.lowest * self.factor**k:.2g}")

    def grid(self, n: int) -> list[float]:
        """n values around the middle of the first four."""
        first = (RATES - n) // 2
        return [self.value(k) for k in range(first, first + n)]

    def beyond(self, n: int, growth: int, *, above: bool) -> list[float]:
        """The values that come next to `grid(n)` at one of its ends."""
        first = (RATES - n) // 2
        return [
            self.value(k) for k in (range(first + n, first + n + growth) if above else range(first - growth, first))
        ]

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
    """One value, with the validation metric and the loss of its run; None where that failed."""

    value: float
    validation: float | None = None
    loss: float = inf


@dataclass(frozen=True)
class Tuning:
    """What was tried, in the order of the values, and what came out best."""

    axis: Axis
    tried: tuple[Tried, ...]
    metric: str
    seconds: float  # of all runs

    @property
    def best(self) -> Tried:
        """Highest accuracy or correlation, or lowest perplexity; of equals the one with the lower loss."""
        sign = 1 if self.metric == "perplexity" else -1
        there = (one for one in self.tried if one.validation is not None)
        return min(there, key=lambda one: (sign * (one.validation or 0.0), one.loss))

    @property
    def edge(self) -> bool:
        """Whether the best is at an end of all that was tried. A value that failed is an end found, not an edge."""
        return self.best in (self.tried[0], self.tried[-1])

    def chosen(self, recipe: Recipe) -> Recipe:
        """The recipe at the best value."""
        return self.axis.set(recipe, self.best.value)


def tune(
    recipe: Recipe,
    store: str | Path,
    *,
    rates: int = RATES,
    growth: int = GROWTH,
    **how: Any,
) -> Tuning:
    """Choose the rate of the recipe's method (or what is tuned of it), on validation.

    rates    values of the grid
    growth   values added where the best is at an end of it
    how      as `sweep`
    Raises: as `sweep`; Failed when every value failed.
    """
    axis = axis_of(recipe.method)
    found = _tried(recipe, axis, axis.grid(rates), store, how)
    if rates > 1 and growth and found.edge:
        above = found.best == found.tried[-1]
        more = _tried(recipe, axis, axis.beyond(rates, growth, above=above), store, how, fail=False)
        tried = (*found.tried, *more.tried) if above else (*more.tried, *found.tried)
        found = replace(found, tried=tried, seconds=found.seconds + more.seconds)
    return found


def _tried(
    recipe: Recipe, axis: Axis, values: Sequence[float], store: str | Path, how: dict[str, Any], fail: bool = True
) -> Tuning:
    """A run of each value, validated once, at the end."""
    asked = [replace(axis.set(recipe, value), seed=SEED, validations=1) for value in values]
    swept = sweep(asked, store, scored=False, **how)
    if len(swept) < len(asked):
        raise Failed("stopped before every value was tried; the same call goes on where it was")
    last = [run.history["validation"][-1] if run.status in FINISHED else None for run in swept.runs]
    if fail and not any(last):
        raise Failed(swept.runs[0].error or "no run finished")
    metric = next((main_metric(one) for one in last if one), "accuracy")
    pairs = zip(values, last, strict=True)
    tried = tuple(Tried(value, one[metric], one["loss"]) if one else Tried(value) for value, one in pairs)
    return Tuning(axis, tried, metric, sum(run.seconds for run in swept.runs))

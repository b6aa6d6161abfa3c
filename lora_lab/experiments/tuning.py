"""Tune each method's learning rate on the validation split, with the same number of rates for every method.

At another method's rate, or if fewer rates are tried, a method looks worse than it is. So every method
has its own geometric grid of sensible rates. If the best rate is at an end of the grid, `growth` more rates beyond that
end are tried; a grid of one rate stays as it is. If the best rate is still at an end, it is marked as an edge: a better
rate may lie beyond. The final runs use seeds that tuning didn't use, so luck in tuning doesn't count twice. The test
split is never used.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from lora_lab.errors import Failed
from lora_lab.experiments.sweep import Sweep
from lora_lab.methods.base import Method
from lora_lab.metrics import main_metric, metric
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED

SEED = 1000  # seed of the first tuning run
RATES, GROWTH = 4, 2  # rates in a grid, and rates that may be added at one end


@dataclass(frozen=True)
class Axis:
    """The setting to tune ("lr" or an option of the method), whose values are `lowest` * `factor`^k."""

    lowest: float
    factor: float = 2.0
    name: str = "lr"

    def grid(self, n: int, *, below: int = 0, above: int = 0) -> list[float]:
        """Return n values (to 2 digits) around the default center, plus `below` smaller and `above` larger values."""
        first = (RATES - n) // 2
        return [float(f"{self.lowest * self.factor**k:.2g}") for k in range(first - below, first + n + above)]

    def set(self, recipe: Recipe, value: float) -> Recipe:
        """Return the recipe with this value of the setting."""
        if self.name == "lr":
            return replace(recipe, lr=value)
        return replace(recipe, method=replace(recipe.method, **{self.name: value}))  # type: ignore[type-var]


WIDE = sqrt(10)  # for methods whose best rates are less well known
AXES = {
    "full": Axis(2.5e-5),
    "lora": Axis(5e-4),
    "head": Axis(0.1, WIDE),
    "bitfit": Axis(1e-3, WIDE),
    "ia3": Axis(10**-2.5, WIDE),
    "lora-xs": Axis(10**-2.5, WIDE),
    "vera": Axis(1e-2, WIDE),
    "tinylora": Axis(1e-3, WIDE),
    "prompt": Axis(10**-2.5, WIDE),
    "ptuning": Axis(1e-3, WIDE),
    "prefix": Axis(1e-2, WIDE),
    "probe": Axis(10.0, 10.0, "l2"),  # has no learning rate; tune its penalty
}
"""Each method's grid; methods not listed use LoRA's grid."""


def axis_of(method: Method) -> Axis:
    """Return the setting to tune for a method, and its values."""
    return AXES.get(method.name, AXES["lora"])


class Tried(NamedTuple):
    """A tried value, with the mean validation metric and loss of its runs (None and inf if a run failed)."""

    value: float
    validation: float | None = None
    loss: float = inf
    each: Sequence[Sequence[float]] = ()  # the metric and the loss of each run


class Tuning(NamedTuple):
    """All tried values in ascending order, the metric that ranks them, and the total seconds of all runs."""

    tried: tuple[Tried, ...]
    metric: str
    seconds: float

    @property
    def best(self) -> Tried:
        """The value that is best on the validation split; ties are broken by loss."""
        sign = -1 if metric(self.metric).higher_is_better else 1
        return min(self.tried, key=lambda t: (inf if t.validation is None else sign * t.validation, t.loss))

    @property
    def edge(self) -> bool:
        """Whether the best value is the lowest or the highest of all tried values, including those that failed."""
        return self.best in (self.tried[0], self.tried[-1])


def tune(
    recipe: Recipe, store: str | Path, *, rates: int = RATES, growth: int = GROWTH, seeds: int = 1, **options: Any
) -> Tuning:
    """Choose a recipe's learning rate (or its setting in `AXES`) on the validation split.

    rates     number of values in the grid
    growth    number of values to add if the best is at an end
    seeds     number of runs per value; the means of these runs are compared
    options   options of `Sweep`
    Raises: see `sweep`; Failed if every value failed.
    """
    axis, sweep = axis_of(recipe.method), Sweep(store, scored=False, **options)

    def recipes(values: Sequence[float]) -> list[Recipe]:
        at_each = [replace(axis.set(recipe, value), validations=1) for value in values]
        return [one.at_seed(SEED + n) for one in at_each for n in range(seeds)]

    def run(values: Sequence[float]) -> Tuning:  # a second call with more values does not repeat earlier runs
        swept = sweep.run(recipes(values))
        if len(swept) < len(values) * seeds:
            raise Failed("tuning was stopped before every value was tried; repeat the call to resume")
        tried, name = list[Tried](), ""
        for i, value in enumerate(values):
            own = swept.runs[i * seeds : (i + 1) * seeds]
            if not all(run.status in FINISHED for run in own):
                tried.append(Tried(value))
                continue
            last = [run.history["validation"][-1] for run in own]
            name = main_metric(last[0])
            each = [[metrics[name], metrics["loss"]] for metrics in last]
            tried.append(Tried(value, fmean(score for score, _ in each), fmean(loss for _, loss in each), each))
        if not name:
            raise Failed(next((run.error for run in swept.runs if run.error), "no run finished"))
        return Tuning(tuple(tried), name, sum(run.seconds for run in swept.runs))

    tuning = run(axis.grid(rates))
    if rates > 1 and growth and tuning.edge:
        end = "above" if tuning.best == tuning.tried[-1] else "below"
        grown = axis.grid(rates, **{end: growth})
        sweep.run(recipes([value for value in grown if value not in axis.grid(rates)]))
        sweep.again = False  # values that have just failed must not be retried
        tuning = run(grown)
    return tuning

"""`sweep --choose` replayed on stored sweeps: what it saves, and what it costs in accuracy. Nothing is trained.

A grid is all rates of one choice of matrices, rank and alpha: 14 of them, of 3 to 6 rates and 2 or 5 seeds. Each is
raced with up to three of its seeds, in every order; the same rule runs over the stored training losses, then the best
mean on validation is taken, of all and of what is left.

    regret       test accuracy of what the whole grid chooses - of what is chosen, means over the seeds that were raced
    bound        of the mean regret on grids like these, at 95%, see `bound`

`python -m benchmarks.early_exit STORE ...` adds other sweeps: every recipe's grid of rates, at least three. Where the
test wasn't scored, validation counts as test; for language models, a point is a hundredth of a nat of loss. A family is
a model, a task and a length. Asked before the runs of 100 and 400 steps and of smollm2: leaving each family out in
turn, the thresholds are chosen that save most of the other families' steps at a mean regret of at most 0.1 points. The
rule changes if on the families left out they save more than today's and cost at most 0.1 points on average. They
did, but on the 14 grids above they cost 0.14 points, so the rule was not changed.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, permutations, product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from scipy.stats import beta  # type: ignore[import-untyped]

from benchmarks.measure import table
from lora_lab.experiments import racing
from lora_lab.experiments.racing import EVERY, behind
from lora_lab.experiments.results import records
from lora_lab.training.recipe import describe, recipe_from

STORES = Path(__file__).parents[1] / "data" / "results" / "sweeps"
MOST_SEEDS = 3
TODAY = racing.GAP, racing.WAY


class Stored(NamedTuple):
    """A run: its training losses, and accuracy on validation and test."""

    losses: list[float]
    validation: float
    test: float


Runs = Mapping[float, Mapping[int, Stored]]  # by rate and seed


class Replayed(NamedTuple):
    """Means over all orders of the seeds: shares, and points of accuracy."""

    rates: int
    seeds: int
    saved: float
    changed: float
    regret: float


def raced(runs: Runs, seeds: Sequence[int]) -> tuple[list[float], int]:
    """The rates that are left after all stages, and the steps taken."""
    left, taken, steps = list(runs), 0, len(next(iter(next(iter(runs.values())).values())).losses)
    for stage in filter(None, (seeds[:1], seeds[1:])):
        stopped: dict[float, int] = {}
        for step in range(EVERY, steps, EVERY):
            curves = {rate: [runs[rate][seed].losses for seed in stage] for rate in left if rate not in stopped}
            stopped |= dict.fromkeys(behind(curves, step, steps), step)
        taken += sum(stopped.get(rate, steps) for rate in left) * len(stage)
        left = [rate for rate in left if rate not in stopped]
    return left, taken


def replayed(runs: Runs) -> Replayed:
    """One grid, with every choice of its seeds that are in all rates, and each of them as the first."""
    seeds = sorted(set.intersection(*(set(own) for own in runs.values())))
    many, found = min(len(seeds), MOST_SEEDS), []
    for order in permutations(seeds, many):
        if list(order[1:]) == sorted(order[1:]):
            left, taken = raced(runs, order)
            mean = {c: [fmean(getattr(runs[c][s], of) for s in order) for of in ("validation", "test")] for c in runs}
            best, ours = (max(rates, key=lambda rate: mean[rate][0]) for rates in (runs, left))
            saved = 1 - taken / (len(runs[best][order[0]].losses) * many * len(runs))
            found.append((saved, float(ours != best), 100 * (mean[best][1] - mean[ours][1])))
    return Replayed(len(runs), many, *np.mean(found, axis=0).tolist())


def grids(store: Path) -> Iterator[tuple[str, Runs]]:
    """The grids of a store, each with at least three rates and all of whose runs took every step."""
    found: dict[str, dict[float, dict[int, Stored]]] = {}
    for record in records(store):
        recipe, losses = recipe_from(record["recipe"]), record["history"]["loss"]
        last = (record["history"]["validation"] or [{}])[-1]
        if len(losses) == recipe.steps and last:
            both = (last, record["metrics"] or last)
            scores = (values["accuracy"] if "accuracy" in values else -values["loss"] for values in both)
            name = f"{recipe.model} {recipe.task} {recipe.steps}: {describe(recipe.method)}"
            name += "" if (recipe.clip, recipe.dtype) == (1.0, "auto") else f", clip {recipe.clip:g}, {recipe.dtype}"
            found.setdefault(name, {}).setdefault(recipe.lr, {})[recipe.seed] = Stored(losses, *scores)
    yield from ((name, runs) for name, runs in found.items() if len(runs) > 2)


def stored() -> dict[str, Runs]:
    """The grids of the sweeps that ship."""
    return dict(chain.from_iterable(map(grids, sorted(STORES.glob("[rt]*.zip")))))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95%, by a bootstrap over grids."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def bound(grids: Collection[Runs]) -> float:
    """Points of regret at most, at 95%: chance that a choice changes, times what a changed one costs.

    The chance is Clopper and Pearson's limit, from the share of each grid's orders that changed. Too few did to know
    what that costs, so the cost is a more eager rule's, which stops the best more often.
    """
    ours = [replayed(part).changed for part in grids]
    with patch.object(racing, "GAP", racing.GAP / 2), patch.object(racing, "WAY", 0.0):
        eager = [replayed(part) for part in grids]
    cost = sum(one.regret for one in eager) / sum(one.changed for one in eager)
    return float(beta.ppf(0.95, sum(ours) + 1, len(ours) - sum(ours))) * cost


def report(quick: bool = False, *stores: str) -> str:
    """The tables and the bound, in Markdown."""
    runs = stored() | dict(chain.from_iterable(map(grids, map(Path, stores))))
    head, found = [*Replayed._fields], {name: replayed(part) for name, part in runs.items()}
    rows = [[name, *(f"{value:.3g}" for value in one)] for name, one in found.items()]
    saved, regret = ([getattr(one, of) for one in found.values()] for of in ("saved", "regret"))
    numbers = fmean(saved), *interval(saved), fmean(regret), *interval(regret), bound(runs.values())
    words = "{} grids: {:.0%} of the steps saved [{:.0%}, {:.0%}]; regret {:.3f} points [{:.3f}, {:.3f}], up to {:.2f}."
    parts = [
        "## --choose, replayed on stored sweeps\n",
        table(["grid", *head], rows),
        "",
        words.format(len(found), *numbers),
    ]
    return "\n".join([*parts, "", left_out(runs)] if stores else parts)


def left_out(grids: Mapping[str, Runs]) -> str:
    """Choose GAP and WAY without each family, and judge them on it beside today's."""
    families = {name: name.split(":")[0] for name in grids}
    replays: dict[tuple[float, float], dict[str, Replayed]] = {}
    for gap, way in product((0.05, 0.1, 0.2), (0.3, 0.6, 0.9)):
        with patch.object(racing, "GAP", gap), patch.object(racing, "WAY", way):
            replays[gap, way] = {name: replayed(runs) for name, runs in grids.items()}

    def mean(rule: tuple[float, float], of: str, names: Sequence[str]) -> float:
        return fmean(getattr(replays[rule][name], of) for name in names)

    rows = []
    for family in dict.fromkeys(families.values()):
        own, others = ([name for name in grids if (families[name] == family) == it] for it in (True, False))
        allowed = [rule for rule in replays if mean(rule, "regret", others) <= 0.1]
        best = max(allowed, key=lambda rule: mean(rule, "saved", others))
        pairs = [f"{mean(rule, 'saved', own):.0%}, {mean(rule, 'regret', own):.3f}" for rule in (best, TODAY)]
        rows.append([family, str(len(own)), f"{best[0]:g}, {best[1]:g}", *pairs])
    return table(["family", "grids", "gap, way chosen without it", "saved, regret", "today's"], rows)


if __name__ == "__main__":
    print(report(False, *sys.argv[1:]))

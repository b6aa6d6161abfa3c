"""Replay `sweep --choose` on stored sweeps, to see how many steps it saves and how much accuracy it costs.

    python -m benchmarks.early_exit [STORE ...]

Nothing is trained. A grid has all rates for one choice of matrices, rank and alpha. The lab ships 14 grids with 3 to 6
rates and 2 or 5 seeds. Each grid is raced with up to three seeds, in every order. The rule of `racing` reads the stored
training losses. Then the rate with the best mean validation score is chosen twice, from all rates and from those left.
The regret is the difference in test accuracy of these two rates, averaged over the seeds in the race (see `bound`).

STORE adds other sweeps, with a grid for each recipe that has at least three rates. If no test was scored, the
validation score replaces it; for language models, one point is 0.01 nats. A family is a model, a task and a number of
steps. Before the runs of 100 and 400 steps and of smollm2, we decided to leave out each family in turn, and to choose
the thresholds that save the most steps on the other families with a mean regret of at most 0.1 points. We would adopt
them if, on the families left out, they saved more than the current ones and cost at most 0.1 points on average.
They did, but on the 14 grids above they cost 0.14 points, so we didn't change the rule.
"""

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from statistics import fmean
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
from scipy.stats import beta  # type: ignore[import-untyped]

from benchmarks.measure import table
from lora_lab.experiments import racing
from lora_lab.experiments.racing import CHECK_EVERY, behind
from lora_lab.experiments.results import records
from lora_lab.training.recipe import describe, recipe_from

STORES = Path(__file__).parents[1] / "data" / "results" / "sweeps"
MAX_SEEDS = 3
CURRENT = racing.MIN_GAP, racing.RELATIVE_GAP


class Stored(NamedTuple):
    """The training losses of a run, and its accuracy on validation and test."""

    losses: list[float]
    validation: float
    test: float


Grid = Mapping[float, Mapping[int, Stored]]  # by rate and seed


class Replay(NamedTuple):
    """The means over all orders of the seeds; the regret is in points of accuracy."""

    rates: int
    seeds: int
    saved: float
    changed: float
    regret: float


def race(grid: Grid, seeds: Sequence[int]) -> tuple[list[float], int]:
    """Return the surviving rates and the number of steps taken."""
    alive, taken, steps = list(grid), 0, len(next(iter(next(iter(grid.values())).values())).losses)
    for stage in filter(None, (seeds[:1], seeds[1:])):
        stopped: dict[float, int] = {}
        for step in range(CHECK_EVERY, steps, CHECK_EVERY):
            curves = {rate: [grid[rate][seed].losses for seed in stage] for rate in alive if rate not in stopped}
            stopped |= dict.fromkeys(behind(curves, step, steps), step)
        taken += sum(stopped.get(rate, steps) for rate in alive) * len(stage)
        alive = [rate for rate in alive if rate not in stopped]
    return alive, taken


def replay(grid: Grid) -> Replay:
    """Race a grid with every choice of its shared seeds, and with each of these seeds as the first."""
    seeds = sorted(set.intersection(*(set(runs) for runs in grid.values())))
    count, outcomes = min(len(seeds), MAX_SEEDS), []
    for order in permutations(seeds, count):
        if list(order[1:]) == sorted(order[1:]):
            alive, taken = race(grid, order)
            validation = {rate: fmean(grid[rate][seed].validation for seed in order) for rate in grid}
            test = {rate: fmean(grid[rate][seed].test for seed in order) for rate in grid}
            best, chosen = (max(rates, key=validation.__getitem__) for rates in (grid, alive))
            saved = 1 - taken / (len(grid[best][order[0]].losses) * count * len(grid))
            outcomes.append((saved, float(chosen != best), 100 * (test[best] - test[chosen])))
    return Replay(len(grid), count, *np.mean(outcomes, axis=0).tolist())


def load(store: Path) -> dict[str, Grid]:
    """Return the grids of a store that have at least three rates, using only runs that took every step."""
    runs: dict[str, dict[float, dict[int, Stored]]] = {}
    for record in records(store):
        recipe, losses = recipe_from(record["recipe"]), record["history"]["loss"]
        last = (record["history"]["validation"] or [{}])[-1]
        if len(losses) == recipe.steps and last:
            splits = (last, record["metrics"] or last)
            scores = (values["accuracy"] if "accuracy" in values else -values["loss"] for values in splits)
            name = f"{recipe.model} {recipe.task} {recipe.steps}: {describe(recipe.method)}"
            name += "" if (recipe.clip, recipe.dtype) == (1.0, "auto") else f", clip {recipe.clip:g}, {recipe.dtype}"
            runs.setdefault(name, {}).setdefault(recipe.lr, {})[recipe.seed] = Stored(losses, *scores)
    return {name: grid for name, grid in runs.items() if len(grid) > 2}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a 95% interval of the mean by a bootstrap over grids."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def bound(grids: Collection[Grid]) -> float:
    """Return an upper 95% bound of the mean regret on grids like these, in points.

    The bound is the probability that the choice changes, times the cost of a changed choice. The probability is the
    Clopper-Pearson limit for the share of orders that changed, summed over grids. Too few orders changed to estimate
    the cost, so the cost is that of an eager rule, which stops the best rate more often.
    """
    changed = [replay(grid).changed for grid in grids]
    with patch.object(racing, "MIN_GAP", racing.MIN_GAP / 2), patch.object(racing, "RELATIVE_GAP", 0.0):
        eager = [replay(grid) for grid in grids]
    cost = sum(result.regret for result in eager) / sum(result.changed for result in eager)
    return float(beta.ppf(0.95, sum(changed) + 1, len(changed) - sum(changed))) * cost


def report(quick: bool = False, *stores: str) -> Iterator[str]:
    grids: dict[str, Grid] = {}
    for store in (*sorted(STORES.glob("[rt]*.zip")), *map(Path, stores)):
        grids |= load(store)
    replays = {name: replay(grid) for name, grid in grids.items()}
    yield "## --choose, replayed on stored sweeps"
    yield table(
        ["grid", *Replay._fields],
        [[name, *(f"{value:.3g}" for value in result)] for name, result in replays.items()],
    )
    saved, regret = [result.saved for result in replays.values()], [result.regret for result in replays.values()]
    text = "{} grids: {:.0%} of the steps saved [{:.0%}, {:.0%}]; regret {:.3f} points [{:.3f}, {:.3f}], up to {:.2f}."
    yield text.format(
        len(grids), fmean(saved), *interval(saved), fmean(regret), *interval(regret), bound(grids.values())
    )
    if stores:
        yield leave_one_out(grids)


def leave_one_out(grids: Mapping[str, Grid]) -> str:
    """Choose both gaps without each family in turn, and compare them with the current values on that family."""
    families = {name: name.split(":")[0] for name in grids}
    replays: dict[tuple[float, float], dict[str, Replay]] = {}
    for gap, way in product((0.05, 0.1, 0.2), (0.3, 0.6, 0.9)):
        with patch.object(racing, "MIN_GAP", gap), patch.object(racing, "RELATIVE_GAP", way):
            replays[gap, way] = {name: replay(grid) for name, grid in grids.items()}

    def mean(rule: tuple[float, float], field: str, names: Sequence[str]) -> float:
        return fmean(getattr(replays[rule][name], field) for name in names)

    rows = []
    for family in dict.fromkeys(families.values()):
        members = [name for name in grids if families[name] == family]
        others = [name for name in grids if families[name] != family]
        allowed = [rule for rule in replays if mean(rule, "regret", others) <= 0.1]
        best = max(allowed, key=lambda rule: mean(rule, "saved", others))
        pairs = [f"{mean(rule, 'saved', members):.0%}, {mean(rule, 'regret', members):.3f}" for rule in (best, CURRENT)]
        rows.append([family, str(len(members)), f"{best[0]:g}, {best[1]:g}", *pairs])
    return table(["family", "grids", "gap, way chosen without it", "saved, regret", "current"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", metavar="STORE", help="a folder or zip file that a sweep wrote")
    print(*report(False, *parser.parse_args().stores), sep="\n\n")

"""`sweep --choose` replayed on stored sweeps: what it saves, and what it costs in accuracy. Nothing is trained.

A grid is all rates of one choice of matrices, rank and alpha: 14 of them, of 3 to 6 rates and 2 or 5 seeds. Each is
raced with up to three of its seeds, in every order; the same rule runs over the stored training losses, then the best
mean on validation is taken, of all and of what is left.

    regret       test accuracy of what the whole grid chooses - of what is chosen, means over the seeds that were raced
    bound        of the mean regret on grids like these, at 95 %, see `bound`

`python -m benchmarks.early_exit STORE ...` replays other sweeps instead: every recipe's grid of rates. Where the test
wasn't scored, validation counts as test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, permutations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from scipy.stats import beta  # type: ignore[import-untyped]

from benchmarks.measure import table
from lora_lab.experiments import racing
from lora_lab.experiments.racing import EVERY, behind
from lora_lab.experiments.results import records

STORES = Path(__file__).parents[1] / "data" / "results" / "sweeps"
MOST_SEEDS = 3


class Stored(NamedTuple):
    """A run: its training losses, and accuracy on validation and test."""

    losses: list[float]
    validation: float
    test: float


Cell = tuple[str, int, float, float]  # targets, rank, alpha, rate
Runs = Mapping[Cell, Mapping[int, Stored]]  # by seed


class Replayed(NamedTuple):
    """Means over all orders of the seeds: shares, and points of accuracy."""

    cells: int
    seeds: int
    saved: float
    changed: float
    regret: float


def stored() -> dict[Cell, dict[int, Stored]]:
    """The runs of lessons 06 and 07, without four that had another dtype or clip."""
    found: dict[Cell, dict[int, Stored]] = {}
    for record in chain.from_iterable(map(records, sorted(STORES.glob("[rt]*.zip")))):
        recipe, method, last = record["recipe"], record["recipe"]["method"], record["history"]["validation"][-1]
        if (recipe["clip"], recipe["dtype"], recipe["steps"], recipe["batch"]) == (1.0, "auto", 200, 8):
            cell = ",".join(method["targets"]), method["rank"], method["alpha"], recipe["lr"]
            run = Stored(record["history"]["loss"], last["accuracy"], record["metrics"]["accuracy"])
            found.setdefault(cell, {})[recipe["seed"]] = run
    return found


def raced(runs: Runs, seeds: Sequence[int]) -> tuple[list[Cell], int]:
    """The cells that are left after all stages, and the steps taken."""
    left, taken, steps = list(runs), 0, len(next(iter(next(iter(runs.values())).values())).losses)
    for stage in filter(None, (seeds[:1], seeds[1:])):
        stopped: dict[Cell, int] = {}
        for step in range(EVERY, steps, EVERY):
            curves = {cell: [runs[cell][seed].losses for seed in stage] for cell in left if cell not in stopped}
            stopped |= dict.fromkeys(behind(curves, step, steps), step)
        taken += sum(stopped.get(cell, steps) for cell in left) * len(stage)
        left = [cell for cell in left if cell not in stopped]
    return left, taken


def replayed(runs: Runs) -> Replayed:
    """One grid, with every choice of its seeds that are in all cells, and each of them as the first."""
    seeds = sorted(set.intersection(*(set(own) for own in runs.values())))
    many, found = min(len(seeds), MOST_SEEDS), []
    for order in permutations(seeds, many):
        if list(order[1:]) == sorted(order[1:]):
            left, taken = raced(runs, order)
            mean = {c: [fmean(getattr(runs[c][s], of) for s in order) for of in ("validation", "test")] for c in runs}
            best, ours = (max(cells, key=lambda cell: mean[cell][0]) for cells in (runs, left))
            saved = 1 - taken / (len(runs[best][order[0]].losses) * many * len(runs))
            found.append((saved, float(ours != best), 100 * (mean[best][1] - mean[ours][1])))
    return Replayed(len(runs), many, *np.mean(found, axis=0).tolist())


def grids(runs: Runs) -> Iterator[tuple[str, dict[Cell, Mapping[int, Stored]]]]:
    """The 14 by name."""
    for head in dict.fromkeys(cell[:3] for cell in runs):
        yield f"{head[0]}, rank {head[1]}, alpha {head[2]:g}", {c: own for c, own in runs.items() if c[:3] == head}


def of_store(store: str) -> Iterator[tuple[str, dict[Any, Mapping[int, Stored]]]]:
    """The grids of a store, each with at least three rates, all of whose runs took every step."""
    found: dict[str, dict[Any, dict[int, Stored]]] = {}
    for record in records(Path(store)):
        recipe, last = dict(record["recipe"]), (record["history"]["validation"] or [{}])[-1]
        rate, seed, method = recipe.pop("lr"), recipe.pop("seed"), recipe.pop("method")
        if len(record["history"]["loss"]) == recipe["steps"] and "accuracy" in last:
            run = Stored(
                record["history"]["loss"], last["accuracy"], record["metrics"].get("accuracy", last["accuracy"])
            )
            name = json.dumps([recipe["model"], recipe["task"], recipe["steps"], recipe["batch"], method])
            found.setdefault(name, {}).setdefault(rate, {})[seed] = run
    yield from ((name, runs) for name, runs in found.items() if len(runs) > 2)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 %, by a bootstrap over grids."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def bound(runs: Runs) -> float:
    """Points of regret at most, at 95 %: chance that a choice changes, times what a changed one costs.

    The chance is Clopper and Pearson's limit, from the share of each grid's orders that changed. Too few did to know
    what that costs, so the cost is a more eager rule's, which stops the best more often.
    """
    ours = [replayed(part).changed for _, part in grids(runs)]
    with patch.object(racing, "GAP", racing.GAP / 2), patch.object(racing, "WAY", 0.0):
        eager = [replayed(part) for _, part in grids(runs)]
    cost = sum(one.regret for one in eager) / sum(one.changed for one in eager)
    return float(beta.ppf(0.95, sum(ours) + 1, len(ours) - sum(ours))) * cost


def report(quick: bool = False) -> str:
    """The tables and the bound, in Markdown."""
    runs = stored()
    named = {name: replayed(part) for name, part in grids(runs)}
    head = ["grid", "cells x seeds", "steps saved", "choice changed", "regret, points"]
    rows = [
        [name, f"{one.cells} x {one.seeds}", f"{one.saved:.0%}", f"{one.changed:.0%}", f"{one.regret:.3f}"]
        for name, one in named.items()
    ]
    found = list(named.values())
    saved, regret = [one.saved for one in found], [one.regret for one in found]
    numbers = fmean(saved), *interval(saved), fmean(regret), *interval(regret), bound(runs)
    words = (
        "{} grids: {:.0%} of the steps saved [{:.0%}, {:.0%}]; regret {:.3f} points [{:.3f}, {:.3f}], at most {:.2f}."
    )
    return "\n".join(
        ["## --choose, replayed on stored sweeps\n", table(head, rows), "", words.format(len(found), *numbers)]
    )


if __name__ == "__main__":
    if stores := sys.argv[1:]:
        found = {name: replayed(runs) for store in stores for name, runs in of_store(store)}
        for name, one in found.items():
            print(
                f"{one.saved:.0%} of the steps saved, {one.changed:.0%} changed, regret {one.regret:.3f} points: {name}"
            )
        print(
            f"{len(found)} grids:",
            *(f"{fmean(getattr(one, of) for one in found.values()):.3f} {of}" for of in Replayed._fields[2:]),
        )
    else:
        print(report())

"""Runs of one task as cells of a map over rate, rank and alpha: from stores, as one small file, and what it shows.

    read("runs") or load()   ->  Playground  ->  shown(playground), which a panel draws
                                             ->  packed(playground), which ships: data/results/playground.json

    python -m lora_lab.experiments.playground STORE... --ranks 1,8,64 --out data/results/playground.json

The file holds each run's seed, its training loss as means of a few steps (one byte each) and the metric at each of its
validations (two bytes each); rates, ranks and alphas are chosen on validation, so test metrics are left out. 540 runs
of 200 steps with 8 validations take about 60 kB. Means and intervals are computed by `shown` when it is opened, and
never in the browser.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from lora_lab.errors import BadValue
from lora_lab.experiments.statistics import mean_interval
from lora_lab.files import read_json, write_atomically
from lora_lab.training.assets import shipped
from lora_lab.training.metrics import factor, main_metric
from lora_lab.training.recipe import Recipe, recipe_from
from lora_lab.training.runs import FINISHED, dtype_of, stores

VERSION = 1
SHIPPED = "data/results/playground.json"
POINTS = 40  # of a loss curve
NONE, NO_CHECK = 255, 65535  # a point of a curve, or a validation, that there is not
LEARNED = 0.01  # nats of validation loss: a run that ends less than this below where it began has learned nothing
VARIED = ("rank", "alpha", "targets")  # settings of the method that tell cells apart, beside the rate
FAMILIES = {  # y: {name: k} of the lines rate * y^k = constant, over which rows of the map the best rate may follow
    "rank": {"alone": 0.0, "root": -0.5, "whole": -1.0},  # rate, rate * alpha / sqrt(r), rate * alpha / r
    "alpha": {"alone": 0.0, "root": 0.5, "whole": 1.0},  # rate, rate * sqrt(alpha), rate * alpha
}


class Cell(NamedTuple):
    """What all seeds of a cell share."""

    targets: str
    rank: int
    alpha: float
    lr: float


class Result(NamedTuple):
    """What came of one run.

    learned   whether its validation loss ended below where it began
    losses    training loss, means of `Playground.every` steps
    checks    (step, metric) of each validation
    dtype     what it was trained in, None where it never began
    who       the student it came from, "" for one's own
    """

    cell: Cell
    seed: int
    status: str
    learned: bool
    losses: Sequence[float]
    checks: Sequence[tuple[int, float]]
    dtype: str | None = None
    who: str = ""

    @property
    def value(self) -> float | None:
        """The metric on the last validation; None where it failed or was not validated."""
        return self.checks[-1][1] if self.checks and self.status in FINISHED else None


@dataclass(frozen=True)
class Playground:
    """Runs that differ in rate, rank, alpha, targets and seed alone.

    recipe   settings of one of them: what they share
    made     {date, lora_lab, hardware, dtype} of most of them
    """

    recipe: Mapping[str, Any]
    metric: str
    results: tuple[Result, ...]
    made: Mapping[str, str]

    @property
    def every(self) -> int:
        """Steps that a point of a loss curve is the mean of."""
        return every(int(self.recipe["steps"]))

    def recipe_of(self, cell: Cell, seed: int) -> Recipe:
        """The recipe of a run of this cell. Raises: BadValue for one that cannot be."""
        own = {"rank": cell.rank, "alpha": cell.alpha, "targets": cell.targets.split(",")}
        method = {**self.recipe["method"], **own}
        return recipe_from({**self.recipe, "method": method, "lr": cell.lr, "seed": seed})

    def plus(self, records: Iterable[tuple[str, Mapping[str, Any]]]) -> Playground:
        """With these runs too, (who, record), if they may share its map; of one seed of a cell the last is kept."""
        own = [(who, record) for who, record in records if is_lora(record) and shared(record["recipe"]) == self.shared]
        if not own:
            return self
        if not self.results:  # it was a plan
            return gathered(own) or self
        found = {(one.who, one.cell, one.seed): one for one in self.results}
        for who, record in own:
            one = _result(who, record, self.metric, self.every)
            found[one.who, one.cell, one.seed] = one
        return replace(self, results=tuple(found.values()))

    @property
    def shared(self) -> str:
        """See `shared`."""
        return shared(self.recipe)

    def only(self, ranks: Iterable[int] = (), alphas: Iterable[float] = ()) -> Playground:
        """The part with these ranks and alphas; all of them where none is named."""
        own, other = set(ranks), set(alphas)
        kept = [one for one in self.results if not own or one.cell.rank in own]
        return replace(self, results=tuple(one for one in kept if not other or one.cell.alpha in other))


def every(steps: int) -> int:
    """Steps of which a loss curve of `POINTS` points shows the mean."""
    return max(1, math.ceil(steps / POINTS))


def thinned(losses: Sequence[float], width: int) -> list[float]:
    """Means of `width` losses each; of the last ones, as many as there are."""
    return [fmean(losses[at : at + width]) for at in range(0, len(losses), width)]


# ---- from stores


def read(folder: str | Path) -> Playground | None:
    """The runs of a store, or of all stores below a folder, each by the name of the folder it lies in.

    Of several models, tasks or lengths it takes the one with most runs. None where there is no run of LoRA.
    Raises: NotFound for a folder that is not there, BadValue for a record that cannot be read.
    """
    return gathered(records(Path(folder)))


def records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from lora_lab.experiments import results  # imports pandas, which shipped runs do without

    for store in sorted(stores(folder)):
        who = "" if store == folder else store.relative_to(folder).parts[0]
        for record in results.records(store):
            yield who, record


def gathered(records: Iterable[tuple[str, Mapping[str, Any]]]) -> Playground | None:
    """(who, record) of runs as a playground of the largest group that may share a map; None where there is no run."""
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for who, record in records:
        if is_lora(record):
            groups.setdefault(shared(record["recipe"]), []).append((who, record))
    group = max(groups.values(), key=len, default=[])
    validated = (record["history"]["validation"][-1] for _, record in group if record["history"]["validation"])
    last = next(validated, None)
    if last is None:
        return None
    metric, steps = main_metric(last), int(group[0][1]["recipe"]["steps"])
    results = tuple(_result(who, record, metric, every(steps)) for who, record in group)
    environments = [record["environment"] for _, record in group if record["environment"]]
    told = [(e.get("date", ""), e.get("lora_lab", ""), e.get("hardware", ""), dtype_of(e) or "") for e in environments]
    made = dict(zip(("date", "lora_lab", "hardware", "dtype"), Counter(told).most_common(1)[0][0], strict=True))
    return Playground(group[0][1]["recipe"], metric, results, made)


def is_lora(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a run of LoRA: others have no rank."""
    return bool(record["recipe"]["method"]["name"] == "lora")


def shared(recipe: Mapping[str, Any]) -> str:
    """What recipes have in common whose runs may stand on one map."""
    method = {name: value for name, value in recipe["method"].items() if name not in VARIED}
    left_out = ("method", "lr", "seed", "validations")
    rest = {name: value for name, value in recipe.items() if name not in left_out}
    return json.dumps([method, rest], sort_keys=True)


def cell_of(recipe: Mapping[str, Any]) -> Cell:
    """The cell of a recipe's settings."""
    method = recipe["method"]
    return Cell(",".join(method["targets"]), int(method["rank"]), float(method["alpha"]), float(recipe["lr"]))


def _result(who: str, record: Mapping[str, Any], metric: str, width: int) -> Result:
    recipe, checks = record["recipe"], record["history"]["validation"]
    first, last = (checks[0], checks[-1]) if checks else ({}, {})
    before = first.get("loss") if first.get("step") == 0 else None
    learned = before is None or len(checks) < 2 or last["loss"] < before - LEARNED
    points = [(int(one["step"]), float(one[metric])) for one in checks if one["step"]]
    losses = [loss if loss is not None else math.nan for loss in record["history"]["loss"]]
    own, dtype = thinned(losses, width), dtype_of(record["environment"])
    return Result(cell_of(recipe), recipe["seed"], record["status"], learned, own, points, dtype, who)


# ---- as one file


def packed(playground: Playground) -> dict[str, Any]:
    """As plain values that JSON holds in a few bytes a run; `unpacked` reads them back."""
    cells = list(dict.fromkeys(one.cell for one in playground.results))
    place = {cell: at for at, cell in enumerate(cells)}
    steps = sorted({step for one in playground.results for step, _ in one.checks})
    top = _top(playground.results)
    high = max([1.0, *(value for one in playground.results for _, value in one.checks if math.isfinite(value))])
    checks = np.full((len(playground.results), len(steps)), NO_CHECK, "<u2")
    for row, one in zip(checks, playground.results, strict=True):
        for step, value in one.checks:
            if math.isfinite(value):
                row[steps.index(step)] = round((NO_CHECK - 1) * max(0.0, value) / high)
    dtypes = list(dict.fromkeys(one.dtype for one in playground.results))
    runs = [
        [place[one.cell], one.seed, one.status, int(one.learned), dtypes.index(one.dtype)] for one in playground.results
    ]
    losses = np.concatenate([quantized(one.losses, top) for one in playground.results])
    return {
        "version": VERSION, "made": dict(playground.made), "recipe": dict(playground.recipe),
        "metric": playground.metric, "dtypes": dtypes, "cells": [list(cell) for cell in cells], "runs": runs,
        "losses": {"top": top, "points": POINTS, "bytes": base64.b64encode(losses.tobytes()).decode()},
        "checks": {"high": high, "steps": steps, "bytes": base64.b64encode(checks.tobytes()).decode()},
    }  # fmt: skip


def unpacked(values: Mapping[str, Any]) -> Playground:
    """The inverse of `packed`, as exact as its bytes. Raises: BadValue for another version."""
    if values.get("version") != VERSION:
        raise BadValue(f"a playground of version {values.get('version')}; this lora_lab reads {VERSION}: update it")
    cells = [Cell(*cell) for cell in values["cells"]]
    kept, top, high = values["losses"], values["losses"]["top"], values["checks"]["high"]
    losses = np.frombuffer(base64.b64decode(kept["bytes"]), np.uint8).reshape(-1, kept["points"])
    steps = values["checks"]["steps"]
    checks = np.frombuffer(base64.b64decode(values["checks"]["bytes"]), "<u2").reshape(len(losses), len(steps))
    results = []
    for (cell, seed, status, learned, dtype), own, seen in zip(values["runs"], losses, checks, strict=True):
        curve = [top * float(point) / (NONE - 1) for point in own if point != NONE]
        at = zip(steps, seen, strict=True)
        points = [(step, high * float(point) / (NO_CHECK - 1)) for step, point in at if point != NO_CHECK]
        results.append(Result(cells[cell], seed, status, bool(learned), curve, points, values["dtypes"][dtype]))
    return Playground(values["recipe"], values["metric"], tuple(results), values["made"])


def load(path: str | Path | None = None) -> Playground:
    """A playground from its file; the one that ships where none is named."""
    return unpacked(read_json(Path(path) if path else shipped(SHIPPED)))


def quantized(losses: Sequence[float], top: float) -> np.ndarray:
    """(POINTS,) uint8: 0 to 254 for a loss of 0 to `top`, which larger ones count as; 255 where there is none."""
    points = np.full(POINTS, NONE, np.uint8)
    kept = np.nan_to_num(np.asarray(losses[:POINTS], float), nan=top, posinf=top)
    points[: len(kept)] = np.round((NONE - 1) * kept.clip(0, top) / top)
    return points


def _top(results: Sequence[Result]) -> float:
    """The largest loss that a curve shows: well above where runs begin."""
    starts = [one.losses[0] for one in results if len(one.losses) and math.isfinite(one.losses[0])]
    return float(f"{1.8 * max(starts, default=1.0):.3g}")


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


# ---- what a map shows


def shown(
    playground: Playground, *, ranks: Iterable[int] = (), alphas: Iterable[float] = (), rates: Iterable[float] = ()
) -> tuple[dict[str, Any], bytes]:
    """What a panel draws: axes, cells with mean and interval, runs, lines; and the loss curves, a row of bytes a run.

    ranks, alphas, rates   values of the axes beside those that were tried: their cells are untried
    Shares are in per cent. Every number that needs statistics is computed here.
    """
    up, results = playground.metric != "perplexity", playground.results
    values = [None if one.value is None else factor(playground.metric) * one.value for one in results]
    groups: dict[Cell, list[int]] = {}
    for at, one in enumerate(results):
        groups.setdefault(one.cell, []).append(at)
    done = {cell: [v for v in (values[at] for at in own) if v is not None] for cell, own in groups.items()}
    means = {cell: fmean(own) for cell, own in done.items() if own}
    best = {targets: _best(means, done, groups, targets, up) for targets in dict.fromkeys(c.targets for c in groups)}
    axis, names, top = _columns(list(groups), rates), list(groups), _top(results)
    cells, states = [], _states(results, means, up)
    for cell, own in groups.items():
        first, several = best[cell.targets], len({states[at] for at in own}) > 1
        behind = None if first in (None, cell) else _behind(results, values, groups[first], own, up)
        told = {
            **cell._asdict(),
            "column": axis.column(cell.lr),
            "runs": own,
            **_interval(done[cell]),
            "behind": behind,
        }
        if several:  # runs that collapsed and runs that did not: no interval of Student's describes both
            told |= {"low": None, "high": None, "behind": behind and [behind[0], None, None]}
        cells.append(told)
    runs = [
        {"seed": one.seed, "who": one.who, "value": _short(value), "state": state}
        for one, value, state in zip(results, values, states, strict=True)
    ]
    halves = [cell["high"] - cell["mean"] for cell in cells if cell["high"] is not None]
    data = {
        "metric": playground.metric, "unit": "%" if playground.metric == "accuracy" else "", "up": up,
        "steps": playground.recipe["steps"], "every": playground.every, "top": top, "points": POINTS,
        "targets": list(best) or [",".join(playground.recipe["method"]["targets"])],
        "ranks": sorted({*ranks, *(cell.rank for cell in groups)}),
        "alphas": sorted({*map(float, alphas), *(cell.alpha for cell in groups)}),
        "rates": axis.rates, "start": axis.start, "wide": axis.wide, "cells": cells, "runs": runs,
        "spread": _short(float(np.median(halves))) if halves else None,
        "best": {targets: names.index(cell) for targets, cell in best.items() if cell is not None},
        "lines": _lines(means, axis, up),
        "moves": {targets: _moves(means, targets, up) for targets in best},
        "about": _about(playground),
    }  # fmt: skip
    return data, b"".join(quantized(one.losses, top).tobytes() for one in results)


def _best(
    means: Mapping[Cell, float],
    done: Mapping[Cell, list[float]],
    groups: Mapping[Cell, list[int]],
    targets: str,
    up: bool,
) -> Cell | None:
    """The best mean of the cells without a failed run and with enough seeds: that of few beside others' is luck."""
    whole = [c for c in means if c.targets == targets and len(done[c]) == len(groups[c])]
    most = max((len(done[c]) for c in whole), default=0)
    fit = [c for c in whole if 2 * len(done[c]) > most]
    return max(fit, key=lambda c: means[c] if up else -means[c], default=None)


class _Axis(NamedTuple):
    """Columns of the map: rates by the logarithm, `wide` octaves each, and the rate that a column is called by."""

    phase: float  # octaves: where a middle of a column lies
    wide: float
    first: int = 0
    rates: Sequence[float] = ()

    def at(self, lr: float) -> float:
        """Where a rate lies, in columns: 0 is the middle of the first."""
        return (math.log2(lr) - self.phase) / self.wide - self.first

    def column(self, lr: float) -> int:
        return math.floor((math.log2(lr) - self.phase) / self.wide + 0.5) - self.first

    @property
    def start(self) -> float:
        """The middle of the first column, in octaves."""
        return self.phase + self.first * self.wide


def _columns(cells: Sequence[Cell], more: Iterable[float]) -> _Axis:
    """As wide as the rates of a row lie apart, or narrower, so that no two of a row share a column."""
    rows: dict[Any, set[float]] = {}
    for cell in cells:
        rows.setdefault(cell[:3], set()).add(cell.lr)
    own = sorted(set(more))
    if own:
        rows["given"] = set(own)
    logs = [sorted(map(math.log2, rates)) for rates in rows.values()]
    gaps = [right - left for row in logs for left, right in itertools.pairwise(row)]
    wide = max(0.25, round(2 * float(np.median(gaps))) / 2) if gaps else 1.0
    axis = None
    while axis is None:
        every = [_Axis(wide * shift, wide) for shift in (0, 0.25, 0.5, 0.75)]
        apart = [one for one in every if all(len({one.column(2**x) for x in row}) == len(row) for row in logs)]
        off = {one.phase: sum(abs(one.at(cell.lr) - one.column(cell.lr)) for cell in cells) for one in apart}
        axis = min(apart, key=lambda one: off[one.phase], default=None)
        wide /= 2
    columns: dict[int, float] = {}
    common = Counter([*(cell.lr for cell in cells), *own])
    for rate, _ in sorted(common.items(), key=lambda one: one[1]):  # the most common comes last, and stays
        columns[axis.column(rate)] = rate
    first, last = min(columns, default=0), max(columns, default=0)
    rates = [columns.get(at, float(f"{2 ** (axis.phase + at * axis.wide):.2g}")) for at in range(first, last + 1)]
    return _Axis(axis.phase, axis.wide, first, rates)


def _interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean of a cell's seeds and its 95 % interval."""
    if not values:
        return {"mean": None, "low": None, "high": None}
    mean, low, high = mean_interval(values)
    return {"mean": _short(mean), "low": _short(low), "high": _short(high)}


def _behind(
    results: Sequence[Result], values: Sequence[float | None], best: Sequence[int], own: Sequence[int], up: bool
) -> list[float | None] | None:
    """How far a cell is behind the best, with the 95 % interval over the seeds that both have."""
    first, second = ({(results[at].who, results[at].seed): values[at] for at in side} for side in (best, own))
    apart = [a - b for name, a in first.items() if a is not None and (b := second.get(name)) is not None]
    return [_short(one) for one in mean_interval([one if up else -one for one in apart])] if apart else None


def _states(results: Sequence[Result], means: Mapping[Cell, float], up: bool) -> list[str]:
    """ "collapsed" where a run learned nothing at a rate above its row's best; below it the run is "flat"."""
    rows: dict[Any, Cell] = {}
    for cell, mean in means.items():
        had = rows.get(cell[:3])
        if had is None or (mean > means[had]) == up:
            rows[cell[:3]] = cell
    states = []
    for one in results:
        row = rows.get(one.cell[:3])
        above = row is not None and one.cell.lr > row.lr
        if one.status not in FINISHED:
            states.append(one.status)
        else:
            states.append("done" if one.learned else "collapsed" if above else "flat")
    return states


def _lines(means: Mapping[Cell, float], axis: _Axis, up: bool) -> dict[str, dict[str, Any]]:
    """For each part of the map, what is lost by following each family of lines instead of tuning every row.

    {"alpha": {"q,v|8": {"alone": {k, at, lost, worst, row}, ...}}}: at rank 8 the rate of row y is
    2^(start + wide * at) / y^k; `lost` is how far its mean, interpolated between the tried rates, is below the best of
    the row: the mean over rows with three rates or more, and `worst` the largest, in `row`.
    """
    found: dict[str, dict[str, Any]] = {"rank": {}, "alpha": {}}
    for down, families in FAMILIES.items():
        parts: dict[str, dict[float, list[tuple[float, float]]]] = {}
        for cell, mean in means.items():
            fixed, y = (cell.alpha, cell.rank) if down == "rank" else (cell.rank, cell.alpha)
            rows = parts.setdefault(f"{cell.targets}|{fixed:g}", {})
            rows.setdefault(y, []).append((axis.at(cell.lr), mean if up else -mean))
        for name, rows in parts.items():
            rows = {y: sorted(row) for y, row in rows.items() if len(row) >= 3}
            if len(rows) >= 2:
                found[down][name] = {
                    family: _fitted(rows, k / axis.wide, axis) | {"k": k} for family, k in families.items()
                }
    return found


def _fitted(rows: Mapping[float, list[tuple[float, float]]], slope: float, axis: _Axis) -> dict[str, float]:
    """The line of this slope, in columns for a doubling of y, that loses least."""
    shifts = {y: slope * math.log2(y) for y in rows}
    low = min(row[0][0] + shifts[y] for y, row in rows.items())
    high = max(row[-1][0] + shifts[y] for y, row in rows.items())
    tried = np.arange(low, high + 0.02, 0.02)
    lost = np.array([
        max(mean for _, mean in row) - np.interp(tried - shifts[y], *np.array(row).T) for y, row in rows.items()
    ])  # fmt: skip
    mean = lost.mean(0)
    flat = np.flatnonzero(mean <= mean.min() + 1e-9)
    at = int(flat[len(flat) // 2])
    worst = int(lost[:, at].argmax())
    found = {"at": tried[at], "lost": mean[at], "worst": lost[worst, at], "row": list(rows)[worst]}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def _moves(means: Mapping[Cell, float], targets: str, up: bool) -> dict[str, float]:
    """By how much each knob moves the metric: the rate through the best cell; rank and alpha each at its best rate."""
    own = {cell: mean for cell, mean in means.items() if cell.targets == targets}
    found: dict[str, float] = {}
    for name, fixed in (("lr", ("rank", "alpha")), ("rank", ("alpha",)), ("alpha", ("rank",))):
        parts: dict[Any, dict[Any, list[float]]] = {}
        for cell, mean in own.items():
            part = parts.setdefault(tuple(getattr(cell, other) for other in fixed), {})
            part.setdefault(getattr(cell, name), []).append(mean)
        tops = [
            [max(row) if up else min(row) for row in part.values() if name == "lr" or len(row) >= 3]
            for part in parts.values()
        ]  # of the part with most rows, and of several that with the best one
        best = max(tops, key=lambda row: (len(row), max(row) if up else -min(row)) if row else (0, 0.0), default=[])
        if len(best) > 1:
            found[name] = float(f"{max(best) - min(best):.3g}")
    return found


def _about(playground: Playground) -> str:
    """Where the runs come from, in one sentence or two."""
    recipe, made, results = playground.recipe, playground.made, playground.results
    people = len({one.who for one in results} - {""})
    of = f" of {people} student{'s' * (people != 1)}" if people else ""
    words = f"{len(results):,} runs{of}: {Path(str(recipe['model'])).name} on {Path(str(recipe['task'])).name}"
    words += f", {recipe['steps']:,} steps at batch size {recipe['batch']:,}."
    if made:
        on = f" on {made['hardware']}" if made.get("hardware") else ""
        words += f" Trained {made['date']} in {made['dtype']} with lora_lab {made['lora_lab']}{on}."
    if len({one.dtype for one in results} - {None}) > 1:
        from lora_lab.experiments.results import mixed_dtypes

        words += f" Careful: {mixed_dtypes(one.dtype for one in results)}."
    return words


def main() -> None:
    """Write the file that ships."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument("--ranks", default="", help="only these, such as 1,8,64")
    parser.add_argument("--alphas", default="")
    parser.add_argument("--out", type=Path, default=shipped(SHIPPED))
    given = parser.parse_args()
    playground = gathered(("", record) for store in given.stores for _, record in records(store))
    if playground is None:
        raise SystemExit(f"no finished run of LoRA in {', '.join(map(str, given.stores))}")
    ranks, alphas = ([float(one) for one in filter(None, text.split(","))] for text in (given.ranks, given.alphas))
    values = packed(playground.only(map(int, ranks), alphas))
    content = json.dumps(values, separators=(",", ":"), allow_nan=False) + "\n"
    write_atomically(given.out, content.encode())
    print(f"{given.out}: {len(values['runs'])} runs, {len(content):,} bytes")


if __name__ == "__main__":
    main()

"""The playground: a map of runs that differ in learning rate, rank and alpha, read from stores or from one file.

    read("runs") or load()  ->  Playground  ->  shown(playground), which `SweepPanel` draws

`load` reads the file that `python docs/playground.py` writes. Rates, ranks and alphas are chosen on the validation
rows, so the map and the file omit test metrics. The means, and the largest difference that chance may explain, are
computed here, never in the browser.
"""

import gzip
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from lora_lab.files import as_path
from lora_lab.methods.lora import LoRA
from lora_lab.metrics import main_metric
from lora_lab.metrics import metric as metric_of
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import Recipe, recipe_from
from lora_lab.training.runs import FINISHED, dtype_of, stores

SHIPPED = "data/results/playground.json.gz"
ENDED = (*FINISHED, "unscored", "failed")  # other runs were interrupted and can be trained again
POINTS = 40  # per loss curve
MISSING = 255  # marks a missing point of a curve
LEARNED = 0.01  # a run has learned if its validation loss falls by more than this, in nats
FAMILIES = {  # y: {name: k} for the lines rate * y^k = constant, where y labels the rows of the map
    "rank": {"alone": 0.0, "root": -0.5, "whole": -1.0},  # rate, rate * alpha / sqrt(r), rate * alpha / r
    "alpha": {"alone": 0.0, "root": 0.5, "whole": 1.0},  # rate, rate * sqrt(alpha), rate * alpha
}
Record = tuple[str, Mapping[str, Any]]  # a student's name and a run's JSON


class Cell(NamedTuple):
    """The settings that all seeds of a cell share."""

    targets: str
    rank: int
    alpha: float
    lr: float


class Result(NamedTuple):
    """One run on the map.

    learned   whether the run's validation loss fell by more than LEARNED
    losses    at most `POINTS` means of training loss; see `curve`
    value     the metric at the last validation; None if the run failed or was not validated
    dtype     training dtype; None if the run never started
    who       the student who trained it; "" in your own store
    """

    cell: Cell
    seed: int
    status: str
    learned: bool
    losses: Sequence[float]
    value: float | None
    dtype: str | None = None
    who: str = ""


@dataclass(frozen=True)
class Playground:
    """Runs that differ only in rate, rank, alpha, targets and seed.

    recipe   the settings of one run; all runs share them, except for the five above
    made     {date, lora_lab, hardware, dtype} with the most common values
    """

    recipe: Mapping[str, Any]
    metric: str
    results: tuple[Result, ...]
    made: Mapping[str, str]

    def recipe_of(self, cell: Cell, seed: int) -> Recipe:
        """Return the recipe of one run. Raises: BadValue for impossible settings."""
        values = {"rank": cell.rank, "alpha": cell.alpha, "targets": cell.targets.split(",")}
        return recipe_from({**self.recipe, "method": {**self.recipe["method"], **values}, "lr": cell.lr, "seed": seed})

    def same_kind(self, records: Iterable[Record]) -> list[Record]:
        """Return the records that belong on this map."""
        return _kinds(records).get(_kind(self.recipe), [])

    def plus(self, records: Iterable[Record]) -> "Playground":
        """Add the runs in `records` that belong on this map, and return the new playground."""
        same = self.same_kind(records)
        if not self.results:  # the first runs determine `metric` and `made`
            return gathered(same) or self
        return replace(self, results=_results(same, self.metric, self.results))


# ---- from stores


def curve(losses: Sequence[float], steps: int) -> list[float]:
    """Reduce a loss curve to at most `POINTS` averages of ceil(steps / POINTS) losses each; the last may have fewer."""
    width = math.ceil(steps / POINTS)
    return [fmean(losses[start : start + width]) for start in range(0, len(losses), width)]


def read(folder: str | Path) -> Playground | None:
    """Read the runs of a store, or of all stores under a folder; return None if no LoRA run was validated.

    If the runs differ in model, task or length, use the largest group of comparable runs.
    Raises: NotFound if the folder does not exist, and BadValue for a record that cannot be read.
    """
    return gathered(records(as_path(folder)))


def records(folder: Path, skip: Container[str] = ()) -> Iterator[Record]:
    """Yield (student's subfolder, record) for every run whose file isn't in `skip`. Raises: see `read`."""
    from lora_lab.experiments import results  # imports transformers, which shipped runs do not need

    seen = set[int]()  # a student's run counts once, even if a zip file and its unpacked folder both exist
    found = sorted(stores(folder))
    single = len(found) == 1 and folder.is_file()  # the only store in a zip file, which may hold it in a folder
    for store in found:
        who = "" if single or store == folder else re.sub(r"(?i)\.zip$", "", store.relative_to(folder).parts[0])
        for record in results.records(store, skip, strict=True):
            if (run := hash((who, json.dumps(record)))) not in seen:
                seen.add(run)
                yield who, record


def gathered(records: Iterable[Record]) -> Playground | None:
    """Return the largest group of runs that belong on one map; None if no run was validated."""
    group = max(_kinds(records).values(), key=len, default=[])
    last = next((checks[-1] for _, record in group if (checks := record["history"]["validation"])), None)
    if last is None:
        return None
    metric, environments = main_metric(last), [record["environment"] for _, record in group if record["environment"]]
    names = ("date", "lora_lab", "hardware")
    counts = Counter((*(e.get(name, "") for name in names), dtype_of(e)) for e in environments)
    made = dict(zip((*names, "dtype"), counts.most_common(1)[0][0], strict=True))
    return Playground(group[0][1]["recipe"], metric, _results(group, metric), made)


def cell_of(recipe: Mapping[str, Any]) -> Cell:
    """Return the map's cell for a recipe's settings."""
    method = recipe["method"]
    return Cell(",".join(method["targets"]), int(method["rank"]), float(method["alpha"]), float(recipe["lr"]))


def _kinds(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group the LoRA runs that have ended; runs that belong on one map form a group."""
    groups = defaultdict[str, list[Record]](list)
    for who, record in records:
        recipe = record["recipe"]  # a run that was never validated has no value on the map
        if recipe["method"]["name"] == "lora" and recipe["validations"] and record["status"] in ENDED:
            groups[_kind(recipe)].append((who, record))
    return groups


def _kind(recipe: Mapping[str, Any]) -> str:
    """Return the settings that all runs on a map share, as a key."""
    method = {name: value for name, value in recipe["method"].items() if name not in ("rank", "alpha", "targets")}
    rest = {name: value for name, value in recipe.items() if name not in ("method", "lr", "seed", "validations")}
    return json.dumps([method, rest], sort_keys=True)


def _results(records: Sequence[Record], metric: str, earlier: Iterable[Result] = ()) -> tuple[Result, ...]:
    """Return earlier and new results; keep the last per student, cell and seed. Merge rates that agree to 3 digits."""
    results = {(result.who, result.cell, result.seed): result for result in earlier}
    rates = {f"{cell.lr:.3g}": cell.lr for _, cell, _ in results}  # NumPy's 0.0020000000000000005 is 0.002
    start = fmean([losses[0] for _, record in records if (losses := record["history"]["loss"])] or [0.0])
    for who, record in records:
        recipe, checks = record["recipe"], record["history"]["validation"]
        before = checks[0].get("loss", start) if checks and checks[0]["step"] == 0 else start  # some runs lack step 0
        last = checks[-1] if checks and checks[-1]["step"] > 0 else None
        learned = last is None or last.get("loss", start) < before - LEARNED
        losses = curve(record["history"]["loss"], recipe["steps"])
        value = last.get(metric) if last and record["status"] != "failed" else None
        cell, seed, dtype = cell_of(recipe), recipe["seed"], dtype_of(record["environment"])
        cell = cell._replace(lr=rates.setdefault(f"{cell.lr:.3g}", cell.lr))
        results[who, cell, seed] = Result(cell, seed, record["status"], learned, losses, value, dtype, who)
    return tuple(results.values())


def load() -> Playground:
    """Load the playground that ships with the lab; its file has the fields of `Playground`."""
    values = json.loads(gzip.decompress(shipped(SHIPPED).read_bytes()))
    results = tuple(Result(Cell(*cell), *rest) for cell, *rest in values["results"])
    return Playground(**values | {"results": results})


# ---- the map


def shown(
    playground: Playground, *, ranks: Iterable[int] = (), alphas: Iterable[float] = (), rates: Iterable[float] = ()
) -> tuple[dict[str, Any], bytes]:
    """Return what `SweepPanel` draws (axes, cells with means, runs, lines), and `POINTS` bytes per run.

    ranks, alphas, rates   extra values for the axes; their cells have no runs yet
    Fractions such as accuracy are in percent. By chance alone, two cells may differ by `luck`; see `_luck`.
    """
    results, metric = playground.results, metric_of(playground.metric)
    top = float(f"{1.8 * max((result.losses[0] for result in results if result.losses), default=1.0):.3g}")
    points = np.array([[*result.losses, *[math.nan] * (POINTS - len(result.losses))] for result in results])
    scaled = np.round(
        (MISSING - 1) * np.clip(points, 0, top) / top
    )  # 254 is `top`, the highest loss that curves can show
    losses = np.nan_to_num(scaled, nan=MISSING).astype(np.uint8).tobytes()
    runs, seeds = defaultdict[Cell, list[int]](list), defaultdict[Cell, list[float]](list)
    for index, result in enumerate(results):
        runs[result.cell].append(index)
        seeds[result.cell] += [] if result.value is None else [metric.factor * result.value]
    sign = 1 if metric.higher_is_better else -1
    quality = {cell: sign * fmean(values) for cell, values in seeds.items() if values}  # higher is better
    start, width, names, columns = _columns(list(runs), list(rates))
    targets, best = list(dict.fromkeys(cell.targets for cell in runs)), {}
    for name in targets:  # only cells without failures and with enough seeds; a cell with few seeds may be best by luck
        complete = [cell for cell in quality if cell.targets == name and len(seeds[cell]) == len(runs[cell])]
        enough = max((len(seeds[cell]) for cell in complete), default=0) / 2
        if candidates := [cell for cell in complete if len(seeds[cell]) > enough]:
            best[name] = max(candidates, key=lambda cell: quality[cell])
    taught = [cell for cell in quality if any(results[index].learned for index in runs[cell])]
    best_rates = {cell[:3]: cell.lr for cell in sorted(taught, key=lambda cell: quality[cell])}  # the last one wins
    described = list[dict[str, Any]]()
    for result in results:
        lr, best_rate = result.cell.lr, best_rates.get(result.cell[:3], math.nan)  # NaN: no run in the row learned
        state = "collapsed" if lr > best_rate else "flat" if lr <= best_rate else "unlearned"
        state = "failed" if result.status == "failed" else "done" if result.learned else state
        value = None if result.value is None else _short(metric.factor * result.value)
        described.append({"seed": result.seed, "who": result.who, "value": value, "state": state})
    cells = [
        {**cell._asdict(), "column": columns[cell.lr], "mean": _short(fmean(own)) if own else None, "runs": runs[cell]}
        for cell, own in seeds.items()
    ]
    learned = [cell for cell in quality if all(described[index]["state"] == "done" for index in runs[cell])]
    steps = playground.recipe["steps"]
    data = {
        "metric": playground.metric, "unit": metric.unit, "up": metric.higher_is_better,
        "steps": steps, "every": math.ceil(steps / POINTS), "top": top, "points": POINTS,
        "targets": targets or [",".join(playground.recipe["method"]["targets"])],
        "ranks": sorted({*ranks, *(cell.rank for cell in runs)}),
        "alphas": sorted({*map(float, alphas), *(cell.alpha for cell in runs)}),
        "rates": names, "start": start, "wide": width, "cells": cells, "runs": described,
        "luck": _luck(seeds[cell] for cell in learned),
        "best": {name: list(runs).index(cell) for name, cell in best.items()},
        "lines": _lines(quality, start, width), "moves": {name: _moves(quality, name) for name in targets},
        "about": _about(playground),
    }  # fmt: skip
    return data, losses


def _short(value: float, digits: int = 5) -> float:
    return float(f"{value:.{digits}g}")


def _luck(cells: Iterable[Sequence[float]]) -> float | None:
    """Return 1.96 standard errors of the difference between two cells' means; None if no cell has several runs."""
    # Use the median variance, since cells that nearly collapse vary more. A variance's median is below its mean, so
    # divide by the median of chi-squared per degree of freedom (Wilson-Hilferty).
    repeated = [values for values in cells if len(values) > 1]
    variances = [np.var(values, ddof=1) / (1 - 2 / (9 * len(values) - 9)) ** 3 for values in repeated]
    return _short(1.96 * math.sqrt(2 * np.median(variances) / fmean(map(len, repeated)))) if repeated else None


def _columns(cells: Sequence[Cell], more: Sequence[float]) -> tuple[float, float, list[float], dict[float, int]]:
    """Divide the axis of rates into columns; return (start, width, labels, the column of each rate).

    Column n is centered at the rate 2^(start + n width). The width is the median step between a row's rates, rounded
    to a multiple of 0.5, then halved until no two rates of a row share a column. A label is a column's center or most
    common rate.
    """
    rates = [rate for rate, _ in Counter([*(cell.lr for cell in cells), *more]).most_common()] or [1e-3]
    rows: dict[Any, set[float]] = defaultdict(set, more=set(more))
    for cell in cells:
        rows[cell[:3]].add(cell.lr)
    steps = [math.log2(high) - math.log2(low) for row in rows.values() for low, high in pairwise(sorted(row))]
    width = max(0.25, round(2 * float(np.median(steps))) / 2) if steps else 1.0
    origin = math.log2(rates[0])
    while True:
        columns = {rate: math.floor((math.log2(rate) - origin) / width + 0.5) for rate in rates}
        if all(len({columns[rate] for rate in row}) == len(row) for row in rows.values()):
            break
        width /= 2
    first, last = min(columns.values()), max(columns.values())
    common = {columns[rate]: rate for rate in reversed(rates)}  # the most common rate comes last and wins
    labels = [common.get(n, _short(2 ** (origin + n * width), 2)) for n in range(first, last + 1)]
    return origin + first * width, width, labels, {rate: n - first for rate, n in columns.items()}


def _lines(quality: Mapping[Cell, float], start: float, width: float) -> dict[str, dict[str, Any]]:
    """Return the best line of each family in `FAMILIES`, for each part of the map: {view: {part: {family: line}}}.

    A view's rows differ in rank (or alpha), and a part's rows share their targets and alpha (or rank): "q,v|8". A line
    {k, at, lost, worst, row, least} gives row y the rate 2^(start + width * at) / y^k. A row loses its best mean minus
    the interpolated mean at that rate. The best line loses the least on average (`lost`), over rows of 3 or more rates;
    `worst` is the most that a row loses, in row `row`. If `least`, the line leaves the tried rates and may lose more.
    """
    result: dict[str, dict[str, Any]] = {"rank": {}, "alpha": {}}
    for view, fixed in (("rank", "alpha"), ("alpha", "rank")):
        parts: dict[str, dict[float, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        for cell, mean in quality.items():
            part = parts[f"{cell.targets}|{getattr(cell, fixed)}".removesuffix(".0")]  # as JavaScript writes numbers
            part[getattr(cell, view)].append(((math.log2(cell.lr) - start) / width, mean))
        for name, part in parts.items():
            rows = {y: np.array(sorted(row)).T for y, row in part.items() if len(row) >= 3}
            if len(rows) > 1:
                lines = {family: {"k": k, **_line(rows, k / width)} for family, k in FAMILIES[view].items()}
                result[view][name] = lines
    return result


def _line(rows: Mapping[float, np.ndarray], slope: float) -> dict[str, float]:
    """Return the best line: column `at - slope * log2(y)` in row y; `rows` is {y: [columns, means]}."""
    shifts = {y: slope * math.log2(y) for y in rows}
    low = min(columns[0] + shifts[y] for y, (columns, _) in rows.items())
    high = max(columns[-1] + shifts[y] for y, (columns, _) in rows.items())
    tried = np.arange(low, high + 0.02, 0.02)
    lost = np.array([row[1].max() - np.interp(tried - shifts[y], *row) for y, row in rows.items()])  # (rows, tried)
    mean = lost.mean(0)
    minima = np.flatnonzero(mean <= mean.min() + 1e-9)
    best = minima[len(minima) // 2]
    worst = lost[:, best].argmax()
    line = {"at": tried[best], "lost": mean[best], "worst": lost[worst, best], "row": list(rows)[worst]}
    columns = {y: tried[best] - shift for y, shift in shifts.items()}
    line["least"] = any(abs(np.clip(columns[y], row[0][0], row[0][-1]) - columns[y]) > 0.1 for y, row in rows.items())
    return {name: _short(value, 4) for name, value in line.items()}


def _moves(quality: Mapping[Cell, float], targets: str) -> dict[str, float]:
    """Return how much the metric changes along a row of rates, and how a row's best value varies with rank or alpha."""
    moves, defaults = dict[str, float](), LoRA()
    for knob, fixed in (("lr", ("rank", "alpha")), ("rank", ("alpha",)), ("alpha", ("rank",))):
        parts: dict[Any, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
        for cell, mean in quality.items():
            if cell.targets == targets:
                parts[tuple(getattr(cell, name) for name in fixed)][getattr(cell, knob)].append(mean)
        # The other settings are at LoRA's defaults or, if these were not tried, at the most common values.
        bests = {k: [max(row) for row in part.values() if knob == "lr" or len(row) >= 3] for k, part in parts.items()}
        values = bests.get(tuple(getattr(defaults, name) for name in fixed), [])
        if len(values) < 2:
            values = max(bests.values(), key=lambda row: (len(row), max(row, default=0)), default=[])
        if len(values) > 1:
            moves[knob] = _short(max(values) - min(values), 3)
    return moves


def _about(playground: Playground) -> str:
    recipe, made, results = playground.recipe, playground.made, playground.results
    students = len({result.who for result in results} - {""})
    whose = f" by {students} student{'s' * (students != 1)}" if students else ""
    model, task = (Path(recipe[name]).name for name in ("model", "task"))
    text = f"{len(results):,} run{'s' * (len(results) != 1)}{whose}: {model} on {task}, "
    text += f"{recipe['steps']:,} steps at batch size {recipe['batch']:,}."
    if made:
        hardware = f" on {made['hardware']}" if made["hardware"] else ""
        text += f" Trained {made['date']} in {made['dtype']} with lora_lab {made['lora_lab']}{hardware}."
    if len({result.dtype for result in results} - {None}) > 1:
        from lora_lab.experiments.results import mixed_dtypes

        text += f" Careful: {mixed_dtypes(result.dtype for result in results)}."
    return text

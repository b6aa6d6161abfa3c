"""What experiments read: published numbers, our stored comparisons, and finished runs, ours or the user's.

A difference in accuracy is judged by an interval against a margin:

    low > -margin            worse by less than the margin, or better: "no worse" holds
    high < -margin           worse by more: it fails
    else                     open
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lora_course.claims.cases import Case
from lora_course.paper import Table, facts, table
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

if TYPE_CHECKING:
    from lora_lab.experiments.statistics import Verdict

Stored = str | Path | None  # a folder of runs; None for ours
KIND = ["model", "task", "steps", "batch", "dtype", "clip"]  # runs that are compared share these
NORMAL_95 = 1.96
SPREADS = {"WikiSQL": 0.5, "MNLI": 0.1, "MNLI-m": 0.1}  # points, from the captions of tables 4 to 6
ROWS = {"lora": ("LoRA", "4.7M"), "full": ("FT", "175,255.8M"), "prompt": ("PreEmbed", "3.2M")}  # of table 4


@dataclass(frozen=True)
class Interval:
    """A difference of two accuracies, a - b, as a share, and its interval at `level` percent."""

    difference: float
    low: float
    high: float
    would_tell: str = "more seeds or rows"
    level: int = 95

    def case(self, settings: Mapping[str, Any], words: str, holds: bool | None) -> Case:
        """A case for this interval, placed on an axis in points."""
        span = tuple(100 * value for value in (self.low, self.difference, self.high))
        return Case(settings, holds, f"{words} {self}", self.would_tell, span)

    def no_worse(self, margin: float) -> bool | None:
        """Whether a is worse by less than the margin; None if that's open."""
        return True if self.low > -margin else False if self.high < -margin else None

    def __neg__(self) -> Interval:
        return Interval(-self.difference, -self.high, -self.low, self.would_tell, self.level)

    def __str__(self) -> str:
        low, high, by = (f"{100 * x:+z.1f}" for x in (self.low, self.high, self.difference))
        return f"{by} points ({self.level} %: {low} to {high})"


def judged(found: Verdict) -> Interval:
    """The 90 % interval of a statistical verdict, and how many more seeds or test rows would decide."""
    more = (("seed", found.more_seeds), ("test row", found.more_rows))
    ways = [f"about {float(f'{n:.2g}'):,.0f} more {what}{'s' * (n != 1)}" for what, n in more if n]
    tell = " or ".join(ways) or "far more seeds and test rows"
    return Interval(found.difference, found.low, found.high, tell, level=90)


# ---- published numbers


def published(name: str) -> dict[str, Any]:
    """A file of data/claims/evidence."""
    return dict(facts(f"claims/evidence/{name}"))


def printed_in(name: str) -> str:
    """The source of a table of the paper, how sure that is, and how many runs are behind it."""
    found = table(name)
    return f"{found.source} ({found.standing}; {found.seeds})"


def metamath(a: str, b: str) -> Interval:
    """a - b in PEFT's suite: the 95 % interval of two shares, one run each, taken as independent."""
    suite = published("metamath")
    _check_named("the suite", suite["rows"], a, b)
    p, q = (suite["rows"][method]["solved"] for method in (a, b))
    half = NORMAL_95 * math.sqrt((p * (1 - p) + q * (1 - q)) / suite["questions"])
    return Interval(p - q, p - q - half, p - q + half, "more than one seed of each, and the answers row by row")


def methods_on_gpt3(a: str, b: str) -> dict[str, Interval]:
    """a - b on two tasks of table 4. Raises: NotFound for a method that isn't in it."""
    _check_named("table 4", ROWS, a, b)
    own, other = (dict(zip(("method", "trainable"), ROWS[method], strict=True)) for method in (a, b))
    return {f"GPT-3, {task}": _apart(table("table4"), task, own, other) for task in ("WikiSQL", "MNLI-m")}


def places_on_gpt3(place: str) -> dict[str, Interval]:
    """A choice of matrices minus each other one of table 5, by task; {} if the table doesn't have it."""
    own, found = ",".join(f"W{role}" for role in place.split("+")), table("table5")
    weights = found.column("weights")
    return {
        f"{other} on {task}": _apart(found, task, {"weights": own}, {"weights": other})
        for other in weights
        for task in ("WikiSQL", "MNLI")
        if own in weights and other != own
    }


def ranks_on_gpt3(rank: int) -> dict[str, Interval]:
    """A rank on q and v minus rank 64, by task of table 6; {} if the table doesn't have it."""
    found = table("table6")
    if rank not in found.column("rank") or rank == 64:
        return {}
    own, other = ({"weights": "Wq,Wv", "rank": one} for one in (rank, 64))
    return {f"GPT-3, {task}": _apart(found, task, own, other) for task in ("WikiSQL", "MNLI")}


def _apart(of: Table, task: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> Interval:
    """Two printed means with a spread s over seeds: d +- 1.96 sqrt(2) s, as if each were one run."""
    difference = (of.row(**own)[task] - of.row(**other)[task]) / 100
    half = NORMAL_95 * math.sqrt(2) * SPREADS[task] / 100
    return Interval(difference, difference - half, difference + half, "the numbers of every seed")


def _check_named(where: str, rows: Mapping[str, Any], *methods: str) -> None:
    for method in methods:
        if method not in rows:
            raise NotFound(f"{where} has no '{method}'; nearest: {nearest(method, rows)}")


# ---- our stored comparisons


@cache
def comparison(name: str) -> dict[str, Any]:
    """A comparison that ships with the lab, as `lora-lab compare --json` printed it. Raises: NotFound."""
    folder = shipped("data/results/compare")
    there = sorted(path.stem for path in folder.glob("*.json"))
    if name not in there:
        raise NotFound(f"no reference comparison is called '{name}'; there are {', '.join(there)}")
    return read_json(folder / f"{name}.json")


def compared(name: str, method: str, against: str, margin: float) -> dict[str, Interval]:
    """method - against in a stored comparison, once for each LoRA it has, from all seeds and rows.

    Raises: NotFound for a method that it doesn't have.
    """
    from lora_lab.experiments.margins import scores_in
    from lora_lab.experiments.statistics import verdict

    found = comparison(name)
    scores = scores_in(found)
    labels = {row["label"]: row["method"] for row in found["methods"] if row["label"] in scores}
    _check_named(f"the comparison on {found['task']}", dict.fromkeys(labels.values()), method, against)
    (other,) = (label for label, one in labels.items() if one == against)
    return {
        f"{found['model']} on {found['task']}{label.removeprefix('LoRA r8').removeprefix(method)}": judged(
            verdict(scores[label], scores[other], margin)
        )
        for label, one in labels.items()
        if one == method
    }


def made_by(name: str) -> str:
    """Where, when and how often a comparison was made."""
    found = comparison(name)
    made, runs = found["environment"], f"{len(found['seeds'])} seeds of {found['steps']} steps"
    return f"data/results/compare/{name}.json: {runs}, {made['hardware']}, {made['date']}"


# ---- finished runs


class Cells:
    """The runs of one kind in a store, and the seeds of a setting at its own best rate."""

    def __init__(self, store: Stored, ours: str) -> None:
        from lora_lab.experiments.results import load, of_one_dtype
        from lora_lab.training.runs import FINISHED, Store

        self.name = str(store or f"data/results/sweeps/{ours}.zip")
        self.store = Store(store or shipped(self.name))
        frame = load(self.store.folder)
        frame = frame[frame["status"].isin(FINISHED)]
        if not len(frame):
            raise NotFound(f"there are no finished runs in {self.name}; sweep first, or leave the store out for ours")
        kinds = frame[KIND].astype(str).agg(" ".join, axis=1)
        frame = frame[kinds == kinds.mode().iloc[0]]
        of_one = of_one_dtype(frame)  # where the recipes left the dtype to the machine
        self.others = len(frame) - len(of_one)
        self.frame = of_one.assign(validation_score=_score)
        self.first = self.frame.iloc[0]
        self._best: dict[str, tuple[float, Any]] = {}
        self._intervals: dict[tuple[int, int, float], Interval] = {}

    def at(self, **wanted: Any) -> pd.DataFrame:
        """The rows with these settings. Raises: NotFound with the values there are."""
        frame = self.frame
        for column, value in wanted.items():
            frame = frame[frame[column] == value]
            if not len(frame):
                there = ", ".join(map(str, sorted(self.frame[column].dropna().unique().tolist())))
                raise NotFound(f"no run with {column} {value} in {self.name}; there are {there}")
        return frame

    def best(self, **wanted: Any) -> tuple[float, Any]:
        """The rate that validation chooses among those with the most seeds, and its runs with their answers.

        Raises: NotFound as `at`; BadValue if nothing was validated, or runs differ in more than their seed.
        """
        from lora_lab.experiments.results import METHOD, SETTINGS, Runs
        from lora_lab.training.recipe import LATER

        if (key := str(wanted)) in self._best:
            return self._best[key]
        frame = self.at(**wanted)
        rates = frame.groupby("lr")["validation_score"].agg(["mean", "size"])
        most = rates[rates["size"] == rates["size"].max()]["mean"]
        if most.isna().all():
            raise BadValue(f"no run with {wanted} in {self.name} was validated, so no rate can be chosen: sweep again")
        rate = float(most.idxmax())
        cell = frame[frame["lr"] == rate]
        if cell["seed"].duplicated().any():
            others = [name for name in ("method", "targets", *METHOD, *SETTINGS, *LATER) if name != "seed"]
            differ = [name for name in others if cell[name].astype(str).nunique() > 1] or ["the method's own options"]
            raise BadValue(f"runs in {self.name} differ in {' and '.join(differ)}, not only in their seed: sort them")
        self._best[key] = rate, Runs(tuple(self.store.read(name) for name in cell["hash"]))
        return self._best[key]

    def on_edge(self, rate: float, **wanted: Any) -> bool:
        """Whether a rate is the lowest or the highest that was tried with these settings."""
        return rate in self.at(**wanted)["lr"].agg(["min", "max"]).tolist()

    def interval(self, a: Any, b: Any, margin: float) -> Interval:
        """a - b, two that `best` found, over the same test rows: the 90 % interval of `statistics.verdict`."""
        from lora_lab.experiments.statistics import verdict

        key = id(a), id(b), margin
        if key not in self._intervals:
            self._intervals[key] = judged(verdict(a, b, margin))
        return self._intervals[key]

    @property
    def made(self) -> str:
        """Where the runs are, how many, and their kind."""
        first = self.first
        kind = f"{first['model']} on {first['task']}, {first['steps']} steps of {first['batch']}"
        others = f", in {first['run_dtype']}; {self.others} in another dtype are left out" if self.others else ""
        return f"{self.name}: {len(self.frame)} runs of {kind}{others}"


@cache
def _ours(name: str) -> Cells:
    return Cells(None, name)


def cells_of(store: Stored, ours: str) -> Cells:
    """The runs of a store; ours are read once."""
    return _ours(ours) if store is None else Cells(store, ours)


def more_rates(edges: Sequence[str]) -> str:
    """What is needed first if the best of these rates was the last one tried."""
    return f"more rates for {' and '.join(edges)}, whose best was the last one tried, and " if edges else ""


def _score(frame: pd.DataFrame) -> pd.Series:
    """What validation chooses by, higher is better: accuracy, else minus the loss; nan without validation."""
    if "validation_accuracy" in frame:
        return frame["validation_accuracy"]
    return -frame["validation_loss"] if "validation_loss" in frame else pd.Series(math.nan, index=frame.index)

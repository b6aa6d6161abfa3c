"""What experiments on claims read: published figures, our stored comparisons, and finished runs, ours or the user's.

A claim about quality is judged by an interval, wherever it comes from:

    low > -margin            worse by less than the margin: "no worse" holds
    high < -margin           worse by more: it fails
    else                     cannot be told
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lora_course.claims.claim_tests.cases import Case
from lora_course.paper import Table, facts, table
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

if TYPE_CHECKING:
    from lora_lab.experiments.statistics import Verdict

Stored = str | Path | None  # a folder of runs; None for ours
KIND = ["model", "task", "steps", "batch", "dtype", "clip"]  # what runs that are compared have in common
NORMAL_95 = 1.96
SPREADS = {"WikiSQL": 0.5, "MNLI": 0.1, "MNLI-m": 0.1}  # points, as tables 4 to 6 say
ROWS = {  # how table 4 calls our methods, and the row of LoRA that the paper puts first
    "lora": ("LoRA", "4.7M"), "full": ("FT", "175,255.8M"), "prompt": ("PreEmbed", "3.2M"),
    "prefix": ("PreLayer", "20.2M"), "bottleneck": ("AdapterH", "40.1M"), "bitfit": ("BitFit", "14.2M"),
}  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A difference of quality, a - b, and its interval; shares of right answers, or nats a token. Higher is better.

    level  of the interval in percent: 90 for runs that were judged here, as equivalence is; 95 if one was printed
    """

    difference: float
    low: float
    high: float
    would_tell: str = "more seeds or rows"
    points: bool = True
    level: int = 95

    def case(self, settings: Mapping[str, Any], words: str, holds: bool | None) -> Case:
        """A case that this interval decides, or would."""
        return Case(settings, holds, f"{words} {self}", self.would_tell)

    def no_worse(self, margin: float) -> bool | None:
        """Whether a is worse by less than the margin; None if it cannot be told."""
        return True if self.low > -margin else False if self.high < -margin else None

    def worse(self) -> bool | None:
        """Whether a is worse at all; None if the interval has 0 in it."""
        return True if self.high < 0 else False if self.low > 0 else None

    def __neg__(self) -> Interval:
        """b - a."""
        return replace(self, difference=-self.difference, low=-self.high, high=-self.low)

    def minus(self, other: Interval) -> Interval:
        """(a - c) - (b - c) = a - b, as wide as both together, at the lower of both levels.

        Raises: BadValue if one counts points and the other nats.
        """
        if self.points != other.points:
            raise BadValue(f"{self} and {other} have different units and cannot be subtracted")
        low, high, level = self.low - other.high, self.high - other.low, min(self.level, other.level)
        return Interval(self.difference - other.difference, low, high, other.would_tell, self.points, level)

    def __str__(self) -> str:
        scale, unit, digits = (100, "points", 1) if self.points else (1, "nats a token", 3)
        low, high, by = (f"{scale * x:+z.{digits}f}" for x in (self.low, self.high, self.difference))
        return f"{by} {unit} ({self.level} %: {low} to {high})"


def judged(found: Verdict) -> Interval:
    """The interval of a statistical verdict, and how many more seeds or test rows would decide."""
    more = (("seed", found.more_seeds), ("test row", found.more_rows))
    ways = [f"about {float(f'{n:.2g}'):,.0f} more {what}{'s' * (n != 1)}" for what, n in more if n]
    tell = " or ".join(ways) or "far more seeds and test rows"
    return Interval(found.difference, found.low, found.high, tell, found.correctness, level=90)


def more_rates(edges: Sequence[str]) -> str:
    """What is wanted first if the best rate of these was the last of those tried: a better one may lie beyond."""
    return f"more rates for {' and '.join(edges)}, whose best was the last of those tried, and " if edges else ""


# ---- published figures


def published(name: str) -> dict[str, Any]:
    """A file of data/claims/evidence."""
    return dict(facts(f"claims/evidence/{name}"))


def printed_in(name: str) -> str:
    """Where the figures of a table of the paper are from, how sure that is, and of how many runs they are."""
    found = table(name)
    return f"{found.source} ({found.standing}; {found.seeds})"


def metamath(a: str, b: str) -> Interval:
    """a - b in PEFT's suite: the 95 % interval of two shares, one run each, taken as independent (normal)."""
    suite = published("metamath")
    _check_named("the suite", suite["rows"], a, b)
    p, q = (suite["rows"][method]["solved"] for method in (a, b))
    half = NORMAL_95 * math.sqrt((p * (1 - p) + q * (1 - q)) / suite["questions"])
    return Interval(p - q, p - q - half, p - q + half, "more than one seed of each, and the answers row by row")


def methods_on_gpt3(a: str, b: str) -> dict[str, Interval]:
    """a - b on two tasks of table 4. Raises: NotFound for a method that is not in it."""
    _check_named("table 4", ROWS, a, b)
    own, other = (dict(zip(("method", "trainable"), ROWS[method], strict=True)) for method in (a, b))
    return {f"{task} (GPT-3)": _apart(table("table4"), task, own, other) for task in ("WikiSQL", "MNLI-m")}


def places_on_gpt3(place: str) -> dict[str, Interval]:
    """A choice of matrices minus each other one of table 5, by task; {} for a choice that is not in it."""
    own, found = ",".join(f"W{role}" for role in place.split("+")), table("table5")
    weights = found.column("weights")
    return {
        f"{other} on {task}": _apart(found, task, {"weights": own}, {"weights": other})
        for other in weights
        for task in ("WikiSQL", "MNLI")
        if own in weights and other != own
    }


def ranks_on_gpt3(rank: int) -> dict[str, Interval]:
    """A rank on q and v minus rank 64, by task of table 6; {} for a rank that is not in it."""
    found = table("table6")
    if rank not in found.column("rank") or rank == 64:
        return {}
    own, other = ({"weights": "Wq,Wv", "rank": one} for one in (rank, 64))
    return {task: _apart(found, task, own, other) for task in ("WikiSQL", "MNLI")}


def _apart(of: Table, task: str, own: Mapping[str, Any], other: Mapping[str, Any]) -> Interval:
    """Two printed means, in shares, with a spread s over seeds each: d +- 1.96 sqrt(2) s.

    As wide as if one run stood behind each, since how many did is not said.
    """
    difference, half = (
        (of.row(**own)[task] - of.row(**other)[task]) / 100,
        NORMAL_95 * math.sqrt(2) * SPREADS[task] / 100,
    )
    return Interval(difference, difference - half, difference + half, "the figures of every seed")


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


def row_of(found: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The row of a method that was trained, the first of several. Raises: NotFound naming those there are."""
    rows = {row["method"]: row for row in reversed(found["methods"]) if row[found["metric"]]["n"]}
    _check_named(f"the comparison on {found['task']}", rows, method)
    return dict(rows[method])


def compared(found: Mapping[str, Any], method: str, against: str) -> Interval:
    """method - against, from what the comparison says of the two directly or of each against full fine-tuning.

    Raises: NotFound for a method that was not trained; BadValue if the numbers of a verdict are missing.
    """
    row, other = row_of(found, method), row_of(found, against)
    if against in row["against"]:
        interval = _interval(found, row, against)
    elif method in other["against"]:
        interval = -_interval(found, other, method)
    else:
        interval = _interval(found, row, "full").minus(_interval(found, other, "full"))
    edges = [one["label"] for one in (row, other) if one.get("edge")]
    return replace(interval, would_tell=more_rates(edges) + interval.would_tell)


def _interval(found: Mapping[str, Any], row: Mapping[str, Any], against: str) -> Interval:
    """The interval that a verdict keeps as numbers: at 90 % if it has that, as `judged` gives, else at 95 %."""
    verdict = row["against"].get(against, {})
    if not verdict.get("intervals"):
        raise BadValue(
            f"the comparison on {found['task']} keeps no interval of '{row['method']}' against '{against}': "
            "make it again with lora-lab compare"
        )
    kept = min(verdict["intervals"], key=lambda one: one["level"])
    ends = kept["low"], kept["high"]
    return Interval(verdict["difference"], *ends, "more seeds", verdict["points"], kept["level"])


def made_by(found: Mapping[str, Any], name: str) -> str:
    """Where, when and how often a comparison was made."""
    made, runs = found["environment"], f"{len(found['seeds'])} seeds of {found['steps']} steps"
    return f"data/results/compare/{name}.json: {runs}, {made['hardware']}, {made['date']}"


# ---- finished runs


class Cells:
    """The runs of a store that are of one kind, and the seeds of a setting at its own best rate."""

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
        of_one = of_one_dtype(frame)  # if the recipes left it to the machine
        self.others = len(frame) - len(of_one)
        self.frame = of_one.assign(validation_score=_score)
        self.first = self.frame.iloc[0]

    def at(self, **wanted: Any) -> pd.DataFrame:
        """The lines with these settings. Raises: NotFound naming what there is."""
        frame = self.frame
        for column, value in wanted.items():
            frame = frame[frame[column] == value]
            if not len(frame):
                there = ", ".join(map(str, sorted(self.frame[column].dropna().unique().tolist())))
                raise NotFound(f"no run with {column} {value} in {self.name}; there are {there}")
        return frame

    def best(self, **wanted: Any) -> tuple[float, Any]:
        """The rate that validation chooses among those with most seeds, and its runs with their answers.

        Raises: NotFound as `at`; BadValue if nothing was validated, or runs differ in more than their seed.
        """
        from lora_lab.experiments.results import METHOD, SETTINGS, Runs
        from lora_lab.training.recipe import LATER

        frame = self.at(**wanted)
        rates = frame.groupby("lr")["validation_score"].agg(["mean", "size"])
        most = rates[rates["size"] == rates["size"].max()]["mean"]
        if most.isna().all():
            raise BadValue(f"no run with {wanted} in {self.name} was validated, so no rate can be chosen: sweep anew")
        rate = float(most.idxmax())
        cell = frame[frame["lr"] == rate]
        if cell["seed"].duplicated().any():
            others = [name for name in ("method", "targets", *METHOD, *SETTINGS, *LATER) if name != "seed"]
            differ = [name for name in others if cell[name].astype(str).nunique() > 1] or ["the method's own options"]
            raise BadValue(f"runs in {self.name} differ in {' and '.join(differ)}, not in their seed alone: sort them")
        return rate, Runs(tuple(self.store.read(name) for name in cell["hash"]))

    def on_edge(self, rate: float, **wanted: Any) -> bool:
        """Whether a rate is the lowest or the highest of those that were tried with these settings."""
        return rate in self.at(**wanted)["lr"].agg(["min", "max"]).tolist()

    def interval(self, a: Any, b: Any, margin: float) -> Interval:
        """a - b over the same test rows, with the 90 % interval of equivalence, as `statistics.verdict` finds it."""
        from lora_lab.experiments.statistics import verdict

        return judged(verdict(a, b, margin))

    @property
    def made(self) -> str:
        """Where the runs lie, how many, and their kind."""
        first = self.first
        kind = f"{first['model']} on {first['task']}, {first['steps']} steps of {first['batch']}"
        others = f", in {first['run_dtype']}; {self.others} in another dtype are left out" if self.others else ""
        return f"{self.name}: {len(self.frame)} runs of {kind}{others}"


def _score(frame: pd.DataFrame) -> pd.Series:
    """What validation chooses by, higher is better: accuracy, else minus the loss; nan if nothing was validated."""
    if "validation_accuracy" in frame:
        return frame["validation_accuracy"]
    return -frame["validation_loss"] if "validation_loss" in frame else pd.Series(math.nan, index=frame.index)

"""Evidence that experiments use: published numbers, our stored comparisons, and finished runs (ours or the user's)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Self

import pandas as pd

from lora_course.claims.cases import Case, check_known
from lora_course.experiments.rates import Ratios, ratios
from lora_course.paper import Table, facts, table
from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments.margins import scores_in
from lora_lab.experiments.statistics import Verdict, verdict
from lora_lab.files import read_json
from lora_lab.methods import REGISTRY
from lora_lab.metrics import metric
from lora_lab.training.assets import shipped

Stored = str | Path | None  # a folder of runs; None for the lab's own runs
KIND = ["model", "task", "steps", "batch", "clip"]  # runs are compared only if these are equal
DTYPES = ["dtype", "run_dtype"]  # must also be equal among methods that train the base, and among all other methods
NORMAL_95 = 1.96
TUNED, PLAIN = "minilm_rt_variants", "LoRA r8 q,v"  # the comparison in lesson 16, and its label for plain LoRA
RATES = (TUNED, "minilm_tweets_rates")  # lesson 15: dense grids of rates, three tuning seeds
RATES_OF_RUNS = "data/results/rates.csv"  # the runs that docs/rates.py trains
VARIANTS = {  # the variants' labels in TUNED
    "LoRA+": f"{PLAIN} lr_ratio 16", "rsLoRA": f"{PLAIN} rslora True", "LoRA-FA": f"{PLAIN} freeze_a True",
    "DoRA": f"{PLAIN} dora True", "PiSSA": f"{PLAIN} init pissa", "VeRA": "vera", "LoRA-XS": "lora-xs",
    "TinyLoRA": "tinylora",
}  # fmt: skip
SPREADS = {"WikiSQL": 0.5, "MNLI": 0.1, "MNLI-m": 0.1}  # points, from the captions of tables 4 to 6
ROWS = {"lora": ("LoRA", "4.7M"), "full": ("FT", "175,255.8M"), "prompt": ("PreEmbed", "3.2M")}  # rows of table 4


@dataclass(frozen=True)
class Interval:
    """The difference between two accuracies, `a - b`, as a fraction, and its interval at `level` percent."""

    difference: float
    low: float
    high: float
    would_tell: str = "more seeds or rows"
    level: int = 95
    unit: str = "points"

    def case(self, settings: Mapping[str, Any], words: str, holds: bool | None) -> Case:
        """Return a case with this interval, in percentage points or hundredths of a nat."""
        span = tuple(100 * value for value in (self.low, self.difference, self.high))
        return Case(settings, holds, f"{words}: {self}", self.would_tell, span)

    def no_worse(self, margin: float) -> bool | None:
        """Return whether `a` is no worse than `b`, or worse by at most the margin; None if the interval can't tell."""
        return True if self.low > -margin else False if self.high < -margin else None

    def __neg__(self) -> Self:
        return replace(self, difference=-self.difference, low=-self.high, high=-self.low)

    def __str__(self) -> str:
        low, high, difference = (f"{100 * x:+z.1f}" for x in (self.low, self.high, self.difference))
        return f"{difference} {self.unit} ({self.level}%: {low} to {high})"


def judged(found: Verdict) -> Interval:
    """Return a statistical verdict's 90% interval, and how many more seeds or test rows would decide it."""
    needed = (("seed", found.more_seeds), ("test row", found.more_rows))
    options = [f"about {float(f'{n:.2g}'):,.0f} more {unit}{'s' * (n != 1)}" for unit, n in needed if n]
    would_tell = " or ".join(options) or "far more seeds and test rows"
    unit = "points" if found.correctness else "hundredths of a nat"
    return Interval(found.difference, found.low, found.high, would_tell, 90, unit)


# ---- published numbers


def published(name: str) -> Any:
    """Load a file from data/claims/evidence."""
    return facts(f"claims/evidence/{name}")


def printed_in(name: str) -> str:
    """Describe a table from the paper: its source, how it was checked, and how many runs its numbers summarize."""
    printed = table(name)
    return f"{printed.source} ({printed.standing}; {printed.seeds})"


def metamath(a: str, b: str) -> Interval:
    """Compute the 95% interval of `a - b` in PEFT's suite, for two independent proportions from one run each."""
    suite = published("metamath")
    check_known((a, b), suite["rows"], "the methods of PEFT's suite")
    p, q = (suite["rows"][method]["solved"] for method in (a, b))
    half = NORMAL_95 * math.sqrt((p * (1 - p) + q * (1 - q)) / suite["questions"])
    return Interval(p - q, p - q - half, p - q + half, "more than one seed per method, and the score of each question")


def methods_on_gpt3(a: str, b: str) -> dict[str, Interval]:
    """Compute `a - b` on two tasks of table 4. Raises: BadValue for a method that isn't in `ROWS`."""
    check_known((a, b), ROWS, "the methods of table 4")
    row_a, row_b = (dict(zip(("method", "trainable"), ROWS[method], strict=True)) for method in (a, b))
    return {f"GPT-3, {task}": _difference(table("table4"), task, row_a, row_b) for task in ("WikiSQL", "MNLI-m")}


def places_on_gpt3(place: str) -> dict[str, Interval]:
    """Compare a choice of matrices with every other choice in table 5, by task; {} if the table lacks this choice."""
    chosen, table5 = ",".join(f"W{role}" for role in place.split("+")), table("table5")
    weights = table5.column("weights")
    return {
        f"{other} on {task}": _difference(table5, task, {"weights": chosen}, {"weights": other})
        for other in weights
        for task in ("WikiSQL", "MNLI")
        if chosen in weights and other != chosen
    }


def ranks_on_gpt3(rank: int) -> dict[str, Interval]:
    """On q and v, compare a rank with rank 64 on two tasks of table 6; {} if the table lacks this rank."""
    table6 = table("table6")
    if rank not in table6.column("rank") or rank == 64:
        return {}
    row_a, row_b = ({"weights": "Wq,Wv", "rank": r} for r in (rank, 64))
    return {f"GPT-3, {task}": _difference(table6, task, row_a, row_b) for task in ("WikiSQL", "MNLI")}


def _difference(printed: Table, task: str, row_a: Mapping[str, Any], row_b: Mapping[str, Any]) -> Interval:
    """Compare two printed means with spread s over seeds: d +- 1.96 sqrt(2) s, as if each mean came from one run."""
    difference = (printed.row(**row_a)[task] - printed.row(**row_b)[task]) / 100
    half = NORMAL_95 * math.sqrt(2) * SPREADS[task] / 100
    return Interval(difference, difference - half, difference + half, "the numbers of every seed")


# ---- our stored comparisons


@cache
def rate_ratios() -> Ratios:
    """Return the ratios of LoRA's best learning rate to that of full fine-tuning in our runs: see `ratios`."""
    return ratios(map(comparison, RATES), pd.read_csv(shipped(RATES_OF_RUNS)))


@cache
def comparison(name: str) -> dict[str, Any]:
    """Load a comparison that ships with the lab, as `lora-lab compare --json` printed it."""
    return read_json(shipped(f"data/results/compare/{name}.json"))


def compared(name: str, method: str, against: str, margin: float) -> dict[str, Interval]:
    """Return how far `method` is ahead of `against` in a stored comparison, for each LoRA variant. Raises: BadValue."""
    stored = comparison(name)
    methods = {row["label"]: row["method"] for row in stored["methods"] if row.get("answers")}
    check_known((method, against), dict.fromkeys(methods.values()), f"the methods compared on {stored['task']}")
    (baseline,) = (label for label, other in methods.items() if other == against)
    where = f"{stored['model']} on {stored['task']}"
    return {
        where + label.removeprefix("LoRA r8").removeprefix(method): judged(of_labels(name, label, baseline, margin))
        for label, other in methods.items()
        if other == method
    }


def of_labels(name: str, label: str, against: str, margin: float) -> Verdict:
    """Return the verdict on one label compared with another in a stored comparison, from all seeds and rows."""
    scores = scores_in(comparison(name))
    return verdict(scores[label], scores[against], margin)


def made_by(name: str) -> str:
    """Describe a comparison: its file, seeds and steps, hardware and date."""
    stored = comparison(name)
    environment, runs = stored["environment"], f"{len(stored['seeds'])} seeds of {stored['steps']} steps"
    return f"data/results/compare/{name}.json: {runs}, {environment['hardware']}, {environment['date']}"


# ---- finished runs


class Cells:
    """The runs of the most common kind in a store. `best` picks a setting's runs at its best learning rate."""

    def __init__(self, store: Stored, ours: str) -> None:
        from lora_lab.experiments.results import Runs, from_store

        self.name = str(store or f"data/results/sweeps/{ours}.zip")
        finished = from_store(store or shipped(self.name)).finished
        if not finished:
            raise NotFound(f"{self.name} has no finished runs; run a sweep first, or omit the store to use our runs")
        frame = _usual(finished.frame, KIND)
        trains_base = frame["method"].map(lambda name: REGISTRY[name].trains_base)
        hashes = {name for _, part in frame.groupby(trains_base) for name in _usual(part, DTYPES)["hash"]}
        self.runs, self.finished = Runs(tuple(r for r in finished.runs if r.recipe.hash in hashes)), len(finished)
        self.first = self.runs.frame.iloc[0]
        self.where = "{model} on {task}".format_map(self.first)
        self._best: dict[str, tuple[float, Any]] = {}

    def best(self, **wanted: Any) -> tuple[float, Any]:
        """Among the rates with the most seeds, return the rate with the best validation score, and its runs."""
        if (key := str(wanted)) not in self._best:
            runs = self.runs.at(**wanted)
            frame, rate = runs.frame, runs.frame["lr"].iloc[0]
            if frame["lr"].nunique() > 1:  # otherwise, as in a comparison's final runs, there is nothing to choose
                column = "validation_accuracy" if "validation_accuracy" in frame else "validation_loss"
                if column not in frame or frame[column].isna().all():
                    raise BadValue(f"no run with {wanted} in {self.name} was validated: sweep again with validation")
                rates = frame.groupby("lr")[column].agg(["mean", "size"])
                means = rates[rates["size"] == rates["size"].max()]["mean"]
                rate = means.idxmax() if metric(column).higher_is_better else means.idxmin()
            self._best[key] = float(rate), runs.at(lr=rate)
        return self._best[key]

    @property
    def made(self) -> str:
        """Where the runs are, how many there are, and what kind they are."""
        dtypes = " and ".join(sorted({*map(str, self.runs.frame["run_dtype"])}))
        kind = "{steps} steps of {batch}, in ".format_map(self.first) + dtypes
        return f"{self.name}: {len(self.runs)} of {self.finished} runs: {self.where}, {kind}"


def _usual(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return the rows of the most common kind."""
    kinds = frame.groupby(names, dropna=False).ngroup()
    return frame[kinds == kinds.mode().iloc[0]]


_cached = cache(Cells)


def cells_of(store: Stored, ours: str) -> Cells:
    """Load the runs of a store, or our own, which are cached."""
    return (_cached if store is None else Cells)(store, ours)

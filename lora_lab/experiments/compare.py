"""Methods compared on equal terms: each at its own tuned rate, several seeds, test scored once, and a verdict.

    for each method   a rate, chosen on validation (`tuning.py`)       OUT/tuning
                      n seeds at that rate, scored on the test split   OUT/runs
                      what it costs, and what it forgot                OUT/costs, OUT/afterwards
    of all            the verdict of each on full fine-tuning and on the probe, with Holm's correction

All share model, data, order of the data per seed, steps, rows per step and head, and the last checkpoint counts. A
frozen base is computed in the fastest dtype here; base weights that train are fp32.

It may be killed at any moment: the same call goes on where it was, with the same outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Self

import numpy as np

from lora_lab.errors import BadValue, Changed, in_a_sentence
from lora_lab.experiments.afterwards import afterwards, before
from lora_lab.experiments.contenders import contenders, label
from lora_lab.experiments.costs import NOTHING, costs_of
from lora_lab.experiments.margins import packed, unpacked
from lora_lab.experiments.plan import ROOM
from lora_lab.experiments.results import scores_of
from lora_lab.experiments.statistics import Verdict, verdicts
from lora_lab.experiments.sweep import Sweep, locked
from lora_lab.experiments.terms import Terms, terms_of
from lora_lab.experiments.tuning import SEED, axis_of, tune
from lora_lab.experiments.workers import each, worth
from lora_lab.files import remembered, write_json
from lora_lab.methods import method_from
from lora_lab.methods.base import Method
from lora_lab.training.runs import FINISHED, Run, Store

OPPONENTS = ("full", "probe")  # every method is judged against these
APART = ("seconds", "forgetting", "n")  # numbers from `afterwards` that are no metrics of the task
Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """One method of a comparison.

    row       its part of the comparison's JSON; `error` says why it is empty, or lacks some runs
    runs      its finished runs by seed, if they were made or found here
    seconds   of tuning, runs, and what was asked afterwards
    """

    row: Mapping[str, Any]
    runs: tuple[Run, ...] = ()
    seconds: float = 0.0

    @property
    def method(self) -> Method:
        """With its settings; of the final runs, if it came to them."""
        return method_from(self.row["settings"])

    @property
    def label(self) -> str:
        """The method in a few words."""
        return str(self.row["label"])

    @property
    def error(self) -> str | None:
        """What went wrong."""
        return self.row["error"]

    @cached_property
    def scores(self) -> np.ndarray | None:
        """(seeds, rows): right or wrong, or minus the loss of each row; None if there are no answers."""
        return unpacked(self.row["answers"]) if self.row.get("answers") else None

    def values(self, metric: str) -> list[float]:
        """A metric of each run, by seed."""
        return list(self.row[metric]["each"]) if metric in self.row else []


@dataclass(frozen=True)
class Comparison:
    """All methods under the same terms; `about` is the JSON without the methods' rows."""

    about: Mapping[str, Any]
    results: tuple[Result, ...]

    @cached_property
    def verdicts(self) -> dict[str, dict[str, Verdict]]:
        """{label: {"full": verdict, "probe": verdict}} of every method with answers, against those that take part."""
        scores = {one.label: one.scores for one in self.results if one.scores is not None}
        judged: dict[str, dict[str, Verdict]] = {name: {} for name in scores}
        for opponent in OPPONENTS:
            there = [one.label for one in self.results if one.row["method"] == opponent and one.label in scores]
            if there and len(scores) > 1:
                own = opponent if opponent in there else there[0]  # "full" rather than "full top 2"
                for name, found in verdicts(scores, own, self.about["margin"]).items():
                    judged[name][opponent] = found
        return judged

    def to_json(self) -> dict[str, Any]:
        """As `lora-lab compare --json` prints it; `from_json` is the inverse, but for the runs."""
        rows = []
        for one in self.results:
            judged = {name: found.to_json() for name, found in self.verdicts.get(one.label, {}).items()}
            rows.append({**one.row, "against": judged or one.row.get("against", {})})
        return {**self.about, "methods": rows}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The comparison that `to_json` wrote, without its runs."""
        about = {name: value for name, value in found.items() if name != "methods"}
        return cls(about, tuple(map(Result, found["methods"])))


def compare(
    model: str,
    task: str,
    methods: str | Iterable[str | Method],
    store: str | Path = "compared",
    *,
    say: Say = lambda words: None,
    again: bool = False,
    download: bool = False,
    stop: threading.Event | None = None,
    note: Callable[[Comparison], None] | None = None,
    workers: int | None = 1,
    **terms: Any,
) -> Comparison:
    """Compare methods on a task: compare("minilm", "rt", "probe,lora,lora:rank=1,full", steps=200, seeds=5).

    methods  words or methods, see `contenders`
    store    a folder for tuning, runs, and comparison.json
    say      called with each step in words, for progress
    again    run failed ones once more
    stop     set it to end after the present step; the same call goes on with the rest
    note     called after each finished method, with the comparison of those finished by then
    workers  methods at once, each in a process with its share of the cores, which `stop` does not reach; None for as
             many as pay. In a script this needs `if __name__ == "__main__":`, for processes read it again.
    terms    the fields of `Terms` and, beyond them, of the recipes
    Raises: BadValue, NotFound for impossible terms, before anything is trained; Changed as `sweep`. A method that fails
    or does not fit the model is recorded with its reason, and the rest go on.
    """
    agreed, entered, out = terms_of(model, task, terms), contenders(methods), Path(store)
    data, stopped = agreed.loaded(download), stop.is_set if stop else lambda: False
    recipes = [agreed.recipe(one) for one in entered]
    base = None
    if agreed.forgetting and not stopped():  # while no process has the cores
        base = before(recipes[0], agreed.forgetting, out / "afterwards", download=download)
    if workers is None:
        workers = 1 if stop else worth(recipes, len(entered) * (agreed.rates + agreed.seeds) * agreed.steps)
    if workers > 1 and stop:
        raise BadValue("stop is heard within one process: leave workers at 1")
    if workers > 1:
        say(f"{workers} methods at once, each in a process of its own")

    def comparison(results: Sequence[Result]) -> Comparison:
        return Comparison(_about(agreed, data.metric, entered, results), tuple(results))

    finished: dict[int, Result] = {}

    def take(number: int, result: Result) -> None:
        if note and not stopped():  # a method that was stopped may lack some of its runs
            finished[number] = result
            note(comparison([finished[one] for one in sorted(finished)]))

    how = {"again": again, "download": download, "stop": stop, "room": ROOM / workers, "lock": False}
    for part in ("tuning", "runs"):
        Store(out / part).check_writable()
    with locked(out / "tuning"), locked(out / "runs"):
        work = partial(_result, agreed, data.metric, base, out, how)
        results = each(work, entered, workers, say, long=lambda one: bool(one.trains_base), done=take)
    made = comparison(results)
    if not stopped():
        write_json(out / "comparison.json", made.to_json())
    return made


def _about(terms: Terms, metric: str, methods: Iterable[Method], results: Sequence[Result]) -> dict[str, Any]:
    environment = next((one.runs[0].environment for one in results if one.runs), {})
    return {
        **{name: getattr(terms, name) for name in ("model", "task", "steps", "batch", "margin", "growth")},
        "metric": metric,
        "seeds": list(range(terms.seeds)),
        "tuning_seeds": [SEED],
        "rates": {label(one): axis_of(one).grid(terms.rates) for one in methods},
        "seconds": sum(one.seconds for one in results),
        "environment": {name: value for name, value in environment.items() if name != "pack"},
    }


def _result(
    terms: Terms, metric: str, base: float | None, out: Path, how: dict[str, Any], method: Method, say: Say
) -> Result:
    """One method from its tuning to what it forgot; as far as it came if something failed."""
    name, axis, runs, seconds = label(method), axis_of(method), tuple[Run, ...](), 0.0
    nothing = ("lr", "edge", "trainable", "head", "file_bytes", "dtype", "products", "seconds", "answers", "error")
    row: dict[str, Any] = {
        **{"method": method.name, "label": name, "settings": method.settings(), "tried": [], "runs": []},
        **{metric: spread([]), **NOTHING, **dict.fromkeys(nothing)},
    }
    try:
        say(f"{name}: tuning {axis.name} over {', '.join(f'{value:g}' for value in axis.grid(terms.rates))}")
        tuning = tune(terms.recipe(method), out / "tuning", rates=terms.rates, growth=terms.growth, **how)
        best, seconds = tuning.best, tuning.seconds
        row["edge"] = tuning.edge
        row["tried"] = [{axis.name: tried.value, "validation": tried.validation} for tried in tuning.tried]
        edge = ", the edge of what was tried" if tuning.edge else ""
        say(f"{name}: {axis.name} {best.value:g} of {len(tuning.tried)} tried{edge}; {best.validation:.4g} there")
        swept = Sweep(out / "runs", **how).run(terms.final(tuning, method))
        runs = tuple(run for run in swept.runs if run.status in FINISHED)
        wrong = next((run.error for run in swept.runs if run.error), None)
        row["error"] = (
            wrong if not runs else wrong and f"{len(swept) - len(runs)} of {len(swept)} seeds failed: {wrong}"
        )
        if runs:
            how = {"folder": out / "afterwards", "download": how["download"]}
            later = [afterwards(run, terms.forgetting, terms.prompts, **how) for run in runs]
            seconds += sum(run.seconds for run in runs) + sum(one["seconds"] for one in later)
            row |= _outcome(terms, metric, base, runs, later)
            row |= remembered(out / "costs" / f"{runs[0].recipe.hash}.json", partial(costs_of, runs[0].recipe))
            if axis.name == "lr":
                row["lr"] = runs[0].recipe.lr
            say(f"{name}: {metric} {', '.join(f'{v:.4g}' for v in row[metric]['each'])}; {seconds:.0f} s in all")
    except Changed:
        raise
    except Exception as error:  # whatever it is: the other methods' half an hour must not be lost with it
        row["error"] = in_a_sentence(error)
        say(f"{name}: failed: {row['error']}")
    return Result(row, runs, seconds)


def _outcome(
    terms: Terms, metric: str, base: float | None, runs: Sequence[Run], later: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What finished runs put into a row, and what was found afterwards."""
    run, task = runs[0], terms.data()
    names = [metric, *(name for name, v in later[0].items() if isinstance(v, int | float) and name not in APART)]
    values = [{**run.metrics, **found} for run, found in zip(runs, later, strict=True)]
    files = list(Path(run.adapter).glob("*.safetensors")) if run.adapter else []
    scores = [scores_of(one, task) for one in runs if one.predictions is not None]
    forgotten = {"task": terms.forgetting, "before": base, "after": spread([v["forgetting"] for v in values if base])}
    return {
        "settings": run.recipe.method.settings(),
        **{name: spread([one[name] for one in values if name in one]) for name in names},
        **({"forgetting": forgotten} if base is not None else {}),
        "trainable": run.adapter_parameters,
        "head": run.head_parameters,
        "file_bytes": sum(file.stat().st_size for file in files) or None,
        "dtype": run.environment["dtype"],
        "products": run.environment.get("products", run.environment["dtype"]),
        "seconds": fmean(run.seconds for run in runs),
        "answers": packed(np.stack(scores)) if scores else None,
        "runs": [run.recipe.hash for run in runs],
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (None of fewer than two), how many, and each."""
    return {
        "mean": fmean(values) if values else None,
        "std": stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "each": list(values),
    }

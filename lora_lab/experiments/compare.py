"""Methods compared on equal terms: each at its own tuned rate, several seeds, test scored once, and a verdict.

    for each method   a rate, chosen on validation (`tuning.py`)       OUT/tuning
                      n seeds at that rate, scored on the test split   OUT/runs
                      what it costs, and what it forgot (`costs.py`, `afterwards.py`)
    of all            the verdict of each on full fine-tuning and on the probe, with Holm's correction

All have the same model, data, order of the data per seed, number of steps, rows a step and head, and the last
checkpoint counts. A frozen base is computed in what is fastest here; where the base's own weights train they are fp32.

It may be killed at any moment: the same call goes on where it was, and gives what it would have given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from lora_lab.errors import BadValue, Changed, in_a_sentence
from lora_lab.experiments.afterwards import afterwards, before
from lora_lab.experiments.contenders import contenders, label
from lora_lab.experiments.costs import NOTHING, costs_of
from lora_lab.experiments.margins import packed
from lora_lab.experiments.plan import ROOM
from lora_lab.experiments.results import scores_of
from lora_lab.experiments.statistics import Verdict, verdicts
from lora_lab.experiments.sweep import locked, sweep
from lora_lab.experiments.terms import Terms, terms_of
from lora_lab.experiments.tuning import SEED, Tuning, axis_of, tune
from lora_lab.experiments.workers import each, worth
from lora_lab.files import remembered, write_json
from lora_lab.methods.base import Method
from lora_lab.training.runs import FINISHED, Run, Store
from lora_lab.training.tasks import Task

OPPONENTS = ("full", "probe")  # whom every method is judged against
APART = ("seconds", "forgetting", "n")  # numbers that `afterwards` finds which are no metric of the task
Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What came of one method. `error` says why there is nothing, or less than there should be."""

    method: Method
    tuning: Tuning | None = None
    runs: tuple[Run, ...] = ()  # finished, by seed
    costs: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    found: tuple[Mapping[str, Any], ...] = ()  # by `afterwards`, of each run
    error: str | None = None

    @property
    def label(self) -> str:
        """The method in a few words."""
        return label(self.method)

    @property
    def seconds(self) -> float:
        """All that the method took: tuning, runs, and what was asked afterwards."""
        later = sum(one["seconds"] for one in self.found)
        return sum(run.seconds for run in self.runs) + later + (self.tuning.seconds if self.tuning else 0.0)

    def values(self, metric: str) -> list[float]:
        """A metric of each run, by seed."""
        every = [{**run.metrics, **found} for run, found in zip(self.runs, self.found, strict=True)]
        return [one[metric] for one in every if metric in one]


@dataclass(frozen=True)
class Comparison:
    """All methods under the same terms."""

    terms: Terms
    task: Task
    results: tuple[Result, ...]
    before: float | None = None  # perplexity of the untrained model on the text that may be forgotten

    @cached_property
    def verdicts(self) -> dict[str, dict[str, Verdict]]:
        """The verdict on every finished method by its label, against full and against the probe where they are."""
        scores = {one.label: self._scores(one) for one in self.results if one.runs}
        judged: dict[str, dict[str, Verdict]] = {name: {} for name in scores}
        for opponent in OPPONENTS:
            there = [one.label for one in self.results if one.method.name == opponent and one.runs]
            if there and len(scores) > 1:
                own = opponent if opponent in there else there[0]  # "full" rather than "full top 2"
                for name, found in verdicts(scores, own, self.terms.margin).items():
                    judged[name][opponent] = found
        return judged

    @property
    def seconds(self) -> float:
        """Of all runs: their shares of the packs that they trained in."""
        return sum(one.seconds for one in self.results)

    def to_json(self) -> dict[str, Any]:
        """As `lora-lab compare --json` prints it."""
        t, runs = self.terms, [run for one in self.results for run in one.runs]
        environment = {k: v for k, v in runs[0].environment.items() if k != "pack"} if runs else {}
        return {
            **{"model": t.model, "task": t.task, "steps": t.steps, "batch": t.batch, "metric": self.task.metric},
            **{"margin": t.margin, "seeds": list(range(t.seeds)), "tuning_seeds": [SEED], "growth": t.growth},
            "rates": {one.label: axis_of(one.method).grid(t.rates) for one in self.results},
            **{"seconds": self.seconds, "environment": environment},
            "methods": [self._row(one) for one in self.results],
        }

    def _row(self, one: Result) -> dict[str, Any]:
        run, tuning = one.runs[0] if one.runs else None, one.tuning
        later = one.found[0].items() if one.found else ()
        names = [self.task.metric, *(k for k, v in later if isinstance(v, int | float) and k not in APART)]
        judged = self.verdicts.get(one.label, {})
        return {
            "method": one.method.name,
            "label": one.label,
            "settings": (run.recipe.method if run else one.method).settings(),
            "lr": run.recipe.lr if run and tuning and tuning.axis.name == "lr" else None,
            "edge": tuning.edge if tuning else None,
            "tried": [
                {t.axis.name: tried.value, "validation": tried.validation} for t in [tuning] if t for tried in t.tried
            ],
            **{name: spread(one.values(name)) for name in names},
            **({"forgetting": self._forgetting(one)} if self.before is not None else {}),
            "trainable": run.adapter_parameters if run else None,
            "head": run.head_parameters if run else None,
            **one.costs,
            "file_bytes": _size(run) if run else None,
            "dtype": run.environment["dtype"] if run else None,
            "products": run.environment.get("products", run.environment["dtype"]) if run else None,
            "seconds": fmean(run.seconds for run in one.runs) if one.runs else None,
            "against": {name: v.to_json() for name, v in judged.items()},
            "answers": packed(self._scores(one)) if one.runs else None,
            "runs": [run.recipe.hash for run in one.runs],
            "error": one.error,
        }

    def _forgetting(self, one: Result) -> dict[str, Any]:
        return {"task": self.terms.forgetting, "before": self.before, "after": spread(one.values("forgetting"))}

    def _scores(self, one: Result) -> np.ndarray:
        """(seeds, rows): right or wrong, or minus the loss of each row."""
        return np.stack([scores_of(run, self.task) for run in one.runs if run.predictions is not None])


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
    say      is called with each step in words, for progress
    again    run what failed once more
    stop     set it to end after the present step: what is returned lacks the rest, with which the same call goes on
    note     is called after each method that is finished, with the comparison of those there are by then
    workers  methods at once, each in a process with its share of the cores, which nobody can `stop`; None for as many
             as pay. A script must call this below `if __name__ == "__main__":`, for processes read it again.
    terms    the fields of `Terms` and, beyond them, of the recipes
    Raises: BadValue, NotFound for what cannot be, before anything is trained; Changed as `sweep`. A method that fails,
    or does not fit the model, is recorded with its reason, and the rest go on.
    """
    agreed = terms_of(model, task, terms)
    entered, data = contenders(methods), agreed.loaded(download)
    for one in entered:
        agreed.recipe(one)  # raises for terms that cannot be
    out, how = Path(store), {"again": again, "download": download, "stop": stop}

    base = None
    if agreed.forgetting and not (stop is not None and stop.is_set()):  # while no process has the cores
        base = before(agreed.recipe(entered[0]), agreed.forgetting, out / "afterwards", download=download)

    def made_of(results: Iterable[Result]) -> Comparison:
        return Comparison(agreed, data, tuple(results), base)

    finished: dict[int, Result] = {}

    def take(number: int, result: Result) -> None:
        if note and not (stop is not None and stop.is_set()):  # a method that was stopped may lack some of its runs
            finished[number] = result
            note(made_of(finished[one] for one in sorted(finished)))

    results = _every(agreed, entered, data.metric, out, say, how, workers, take)
    if stop is not None and stop.is_set():
        return Comparison(agreed, data, results)
    made = made_of(results)
    write_json(out / "comparison.json", made.to_json())
    return made


def _every(
    terms: Terms, methods: Sequence[Method], metric: str, out: Path, say: Say, how: dict[str, Any], workers: int | None,
    take: Callable[[int, Result], None],
) -> tuple[Result, ...]:  # fmt: skip
    """All methods' results, in their order. Raises: BadValue for processes that are to be stopped."""
    recipes = [terms.recipe(one) for one in methods]
    if workers is None:
        workers = 1 if how["stop"] else worth(recipes, len(methods) * (terms.rates + terms.seeds) * terms.steps)
    if workers > 1 and how["stop"]:
        raise BadValue("stop is heard within one process: leave workers at 1")
    if workers > 1:
        say(f"{workers} methods at once, each in a process of its own")
        how = how | {"room": ROOM / workers}  # each with its share of the free memory
    for store in (out / "tuning", out / "runs"):
        Store(store).check_writable()
    work = partial(_result, terms, metric, out, how)
    with locked(out / "tuning"), locked(out / "runs"):  # for all of the methods, each of which has a part of them
        return tuple(each(work, methods, workers, say, long=lambda one: bool(one.trains_base), done=take))


def _result(terms: Terms, metric: str, out: Path, how: dict[str, Any], method: Method, say: Say) -> Result:
    """One method from its tuning to what it forgot; how far it came where something failed."""
    how = how | {"part": terms.recipe(method).hash}
    result = Result(method)
    try:
        result = _tuned(terms, result, out, say, how)
        result = _trained(terms, result, metric, out, say, how)
    except Changed:
        raise
    except Exception as error:  # whatever it is: the other methods' half an hour is not to be lost with it
        words = in_a_sentence(error)
        say(f"{result.label}: failed: {words}")
        return replace(result, error=words)
    return result


def _tuned(terms: Terms, result: Result, out: Path, say: Say, how: dict[str, Any]) -> Result:
    axis = axis_of(result.method)
    say(f"{result.label}: tuning {axis.name} over {', '.join(f'{v:g}' for v in axis.grid(terms.rates))}")
    tuning = tune(terms.recipe(result.method), out / "tuning", rates=terms.rates, growth=terms.growth, **how)
    best, edge = tuning.best, ", the edge of what was tried" if tuning.edge else ""
    say(f"{result.label}: {axis.name} {best.value:g} of {len(tuning.tried)} tried{edge}; {best.validation:.4g} there")
    return replace(result, tuning=tuning)


def _trained(terms: Terms, result: Result, metric: str, out: Path, say: Say, how: dict[str, Any]) -> Result:
    assert result.tuning is not None
    swept = sweep(terms.final(result.tuning, result.method), out / "runs", **how)
    runs = tuple(run for run in swept.runs if run.status in FINISHED)
    wrong = next((run.error for run in swept.runs if run.error), None)
    if not runs:
        return replace(result, error=wrong)
    asked = {"folder": out / "afterwards", "download": how["download"]}
    found = tuple(afterwards(run, terms.forgetting, terms.prompts, **asked) for run in runs)
    recipe = runs[0].recipe
    costs = remembered(out / "costs" / f"{recipe.hash}.json", lambda: costs_of(recipe))
    error = f"{len(swept.runs) - len(runs)} of {len(swept.runs)} seeds failed: {wrong}" if wrong else None
    done = replace(result, runs=runs, costs=costs, found=found, error=error)
    say(f"{done.label}: {metric} {', '.join(f'{v:.4g}' for v in done.values(metric))}; {done.seconds:.0f} s in all")
    return done


def _size(run: Run) -> int | None:
    """Bytes of the tensors that the run left on the disk."""
    files = list(Path(run.adapter).glob("*.safetensors")) if run.adapter else []
    return sum(file.stat().st_size for file in files) or None


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (None of fewer than two), how many, and each."""
    return {
        "mean": fmean(values) if values else None,
        "std": stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "each": list(values),
    }

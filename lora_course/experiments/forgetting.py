"""Forgetting: what tuning a language model on one kind of text does to its perplexity on another.

    at every validation    own loss, nats per token of the tuned task's validation split, and the loss on other text
    at one own loss L      where a run first reaches L, between two validations: other = before + share (after - before)

A method that learns less also forgets less, and so does one that is stopped early. The fair question is therefore what
is forgotten for equal learning: runs are compared where they have come to the same own loss, the lowest that all of
them reach. Source: Biderman et al. 2024, "LoRA learns less and forgets less".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_lab.errors import BadValue
from lora_lab.experiments.afterwards import ROWS, held_out, perplexity_on
from lora_lab.experiments.results import by_name
from lora_lab.experiments.statistics import Verdict, check_margin, verdicts_of
from lora_lab.experiments.sweep import Sweep
from lora_lab.methods.base import Method
from lora_lab.training.evaluate import Score, evaluate_members
from lora_lab.training.loop import Member
from lora_lab.training.models import load_model, load_tokenizer
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store

SAYS = {"better": "forgets less than", "worse": "forgets more than", "equivalent": "forgets as much as"}


class Remembering(Pack):
    """A pack that reads other text at every validation: each record has `other_perplexity`, and `other_losses` by row.

    They stand in the run's history, so that a broken-off pack goes on with them, and the last in its metrics.
    """

    def __init__(self, recipes: Sequence[Recipe], *, other: str, rows: int, **how: Any) -> None:
        super().__init__(recipes, **how)
        self.other, self.other_rows = _source(other, rows), held_out(other, rows, self.tokenizer)

    def validate(self) -> list[dict[str, Any]]:
        """As any pack, and what the other text's losses are."""
        scores = evaluate_members(self.model, self.other_rows, self.pad, self.device, len(self.members))
        return [own | _told(score) for own, score in zip(super().validate(), scores, strict=True)]

    before = validate

    def record(self, member: Member, score: Score | None) -> Run:
        """As any pack's, and which other text it was, how many rows of it, and its perplexity at the end."""
        run = super().record(member, score)
        seen = [r["other_perplexity"] for r in run.history["validation"] if "other_perplexity" in r]
        metrics = run.metrics | ({"other_perplexity": seen[-1]} if score and seen else {})
        return replace(run, metrics=metrics, environment=run.environment | {"other": self.other})


@dataclass(frozen=True)
class Forgetting:
    """Finished runs by method, in the order of their seeds, and what became of the other text.

    task, other   what was tuned on, and what the perplexity is of
    base          the other text's perplexity before anything was attached
    against       the method that the others are compared with
    margin        nats per token within which two are called equal: 0.01 is 1 % of the perplexity
    """

    runs: Mapping[str, Sequence[Run]]
    task: str
    other: str
    base: float
    against: str
    margin: float = 0.01

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each validation: method, seed, step, loss (own, nats per token), other_perplexity."""
        lines = [
            {"method": name, "seed": run.recipe.seed}
            | {key: record[key] for key in ("step", "loss", "other_perplexity")}
            for name, runs in self.runs.items()
            for run in runs
            for record in _records(run)
        ]
        return pd.DataFrame(lines, columns=["method", "seed", "step", "loss", "other_perplexity"])

    @cached_property
    def levels(self) -> dict[str, float]:
        """The own loss at which each other method meets `against`: the lowest that all runs of both reach.

        A pair is left out that reaches none below where it began.
        """
        found = {}
        for name in self.others:
            pair = self.runs[name], self.runs[self.against]
            paths = [[r["loss"] for r in _records(run)] for runs in pair for run in runs]
            if all(pair) and (level := max(map(min, paths))) < min(path[0] for path in paths):
                found[name] = level
        return found

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Of each method on `against` where both have the same own loss: better forgets less. Holm's correction.

        Of the other text's losses with their sign turned, by seed and row; seeds that both have are pairs.
        """
        pairs = {name: self._pair(name, level) for name, level in self.levels.items()}
        return verdicts_of(pairs, self.margin) if pairs else {}

    @property
    def others(self) -> list[str]:
        """The methods but `against`."""
        return [name for name in self.runs if name != self.against]

    def finding(self) -> list[str]:
        """For each method but `against` a line: which forgets less at the same loss, or that it is undecided."""
        return [self._line(name) for name in self.others]

    def __str__(self) -> str:
        """The conclusion in words: the other text's perplexity before and after, and each verdict."""
        ends = self.frame.groupby(["method", "seed"], sort=False)["other_perplexity"].last()
        said = [f"{name} {self._range(ends[name])}" for name in self.runs if name in ends]
        first = (
            f"Perplexity on {self.other} is {self.base:.1f} before tuning on {self.task}; after it: {'; '.join(said)}."
        )
        whole = " It rose for none: nothing was forgotten here." if len(ends) and (ends <= self.base).all() else ""
        full = [
            f"{self._line(name)}{f' ({self.verdicts[name]})' if name in self.verdicts else ''}." for name in self.others
        ]
        return "\n".join([first + whole, *full])

    def _line(self, name: str) -> str:
        for one in (name, self.against):
            if not self.runs[one]:
                return f"{name} and {self.against} are not compared: {one} has no finished run"
        if name not in self.verdicts:
            return f"{name} and {self.against} come to no common loss below where they began: train longer"
        outcome, at = self.verdicts[name].outcome, f"at a loss of {self.levels[name]:.3f} on {self.task}"
        if outcome == "undecided":
            return f"undecided whether {name} forgets less than {self.against} {at}"
        return f"{name} {SAYS[outcome]} {self.against} {at}"

    def _range(self, ends: pd.Series) -> str:
        spread = f" ({ends.min():.1f} to {ends.max():.1f})" if len(ends) > 1 else ""
        return f"{ends.mean():.1f}{spread}"

    def _pair(self, name: str, level: float) -> tuple[np.ndarray, np.ndarray]:
        own, other = ({run.recipe.seed: run for run in self.runs[one]} for one in (name, self.against))
        seeds = sorted(own.keys() & other.keys())
        first, second = (([runs[s] for s in seeds] if seeds else list(runs.values())) for runs in (own, other))
        return -np.stack([at_loss(run, level) for run in first]), -np.stack([at_loss(run, level) for run in second])


def at_loss(run: Run, level: float) -> np.ndarray:
    """(rows,): the other text's losses where the run's own loss first reaches `level`, between two validations.

    Raises: BadValue for a level that it never reaches.
    """
    records = _records(run)
    if records[0]["loss"] <= level:
        return np.array(records[0]["other_losses"])
    for before, after in pairwise(records):
        if after["loss"] <= level:
            share = (before["loss"] - level) / (before["loss"] - after["loss"])
            was, now = np.array(before["other_losses"]), np.array(after["other_losses"])
            return was + share * (now - was)
    lowest = min(record["loss"] for record in records)
    raise BadValue(f"the run {run.recipe.hash} never comes to a loss of {level:.3f}; its lowest is {lowest:.3f}")


def forgetting(
    methods: Mapping[Method, float],
    *,
    model: str = "smollm2",
    task: str = "kjv",
    other: str = "shakespeare",
    seeds: Iterable[int] = (0, 1, 2),
    steps: int = 100,
    batch: int = 4,
    validations: int = 8,
    rows: int = ROWS,
    margin: float = 0.01,
    store: Store | str | Path = "runs",
    fields: Mapping[str, Any] | None = None,
    **how: Any,
) -> Forgetting:
    """Tune on one kind of text and watch another, packed and resumable as any sweep: forgetting({LoRA(): 1e-3}).

    methods     each with its learning rate; full fine-tuning is what the others are compared with where it is one of
                them, else the first is
    rows        held-out texts of the other kind, read at every validation
    fields      further ones of every recipe
    how         as `sweep` takes it: stop, note, size
    Raises: BadValue for a task with labels, no method, two that are called the same, a margin of 0, or no run that
    finished; as `sweep`.
    """
    if validations < 1:
        raise BadValue(f"forgetting reads the other text at each validation: at least 1, not {validations}")
    check_margin(margin, shares=False)
    named, tokenizer, numbers = by_name(methods), load_tokenizer(model), list(seeds)
    for text in (task, other):
        held_out(text, rows, tokenizer)  # refused now rather than by each run
    shared = {"steps": steps, "batch": batch, "validations": validations} | dict(fields or {})
    wanted = {
        name: [Recipe(model, task, method, lr=methods[method], seed=seed, **shared) for seed in numbers]
        for name, method in named.items()
    }
    watching, source = partial(Remembering, other=other, rows=rows), _source(other, rows)
    sweep = Sweep(store, pack=watching, serves=lambda run: run.environment.get("other") == source, **how)
    swept = sweep.run(recipe for recipes in wanted.values() for recipe in recipes)
    runs = {run.recipe: run for run in swept.finished.runs}
    if not runs:
        raise BadValue(f"no run finished: {next((run.error for run in swept.runs if run.error), 'stopped')}")
    where = next(iter(runs.values())).environment
    plain = load_model(model, dtype=where["dtype"], attention=where["attention"]).to(where["device"])
    base = perplexity_on(plain, tokenizer, other, rows)
    found = {name: [runs[recipe] for recipe in recipes if recipe in runs] for name, recipes in wanted.items()}
    against, own = "full" if "full" in named else next(iter(named)), Path(task).name  # of a file, its name alone
    return Forgetting(found, own, Path(other).name, base, against, margin)


def _source(other: str, rows: int) -> dict[str, Any]:
    """How a record says what its other text was."""
    return {"task": other, "rows": rows}


def _told(score: Score) -> dict[str, Any]:
    return {
        "other_perplexity": score.metrics["perplexity"],
        "other_losses": [round(float(loss), 5) for loss in score.by_row],
    }


def _records(run: Run) -> list[dict[str, Any]]:
    """Its validations, those that read the other text."""
    return [record for record in run.history["validation"] if "other_losses" in record]

"""Little data: test accuracy against the number of training texts, every method on the same draws of them.

    accuracy(n)    n = 50, 100, 500, all; the shape of the paper's Table 16 (Hu et al. 2021, appendix F.3)

One draw of 50 says little of 50 texts: draws differ by several points, more than methods do. So there are many draws,
each shared by all methods, and draw i of two methods is a pair. All train the same number of steps at a rate chosen
beforehand, are scored once on the same test rows, and get a verdict against the probe (logistic regression on the
frozen model's features), which is the floor that a method is worth something above.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_lab.errors import BadValue
from lora_lab.experiments.results import by_name, scores_of
from lora_lab.experiments.statistics import Verdict, check_margin, verdicts_of
from lora_lab.experiments.sweep import sweep
from lora_lab.methods.base import Method
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store
from lora_lab.training.tasks import load_task

SIZES = (50, 100, 500, 0)  # 0 is all
FLOOR = "probe"
EXACT = ("probe",)  # found without any draw of numbers: another seed would be the same run
Place = tuple[str, int]  # a method as it is called, and how many examples


@dataclass(frozen=True)
class Little:
    """Runs by method and size, in the order of the subsets (of all texts: of the seeds), and what they come to.

    runs      that have finished, None in the place of one that has not
    against   the method that the others are compared with
    total     texts that `all` is
    """

    runs: Mapping[Place, Sequence[Run | None]]
    against: str
    total: int
    margin: float = 0.015

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each finished run: method, examples, all (whether that is all there are), subset, accuracy, hash.

        `subset` counts seeds where a run had all texts.
        """
        lines = [
            {"method": name, "examples": size, "all": size == self.total, "subset": number}
            | {"accuracy": run.metrics["accuracy"], "hash": run.recipe.hash}
            for (name, size), runs in self.runs.items()
            for number, run in enumerate(runs)
            if run is not None
        ]
        return pd.DataFrame(lines, columns=["method", "examples", "all", "subset", "accuracy", "hash"])

    @cached_property
    def verdicts(self) -> dict[Place, Verdict]:
        """Of each method at each size, against `against` there; Holm's correction over all of them together.

        From the subsets that both have finished; a place without one has no verdict.
        """
        pairs = {place: self._pair(place) for place in self.runs if place[0] != self.against}
        known = {place: pair for place, pair in pairs.items() if pair}
        return verdicts_of(known, self.margin) if known else {}

    @property
    def methods(self) -> list[str]:
        """As they are called, in the order asked for."""
        return list(dict.fromkeys(name for name, _ in self.runs))

    @property
    def sizes(self) -> list[int]:
        """Numbers of training texts, smallest first."""
        return sorted({size for _, size in self.runs})

    def finding(self) -> list[str]:
        """For each other method a line: "lora r8 against probe: undecided at 50 and 100, better at all 8,162"."""
        return [
            f"{name} against {self.against}: {self._outcomes(name)}" for name in self.methods if name != self.against
        ]

    def __str__(self) -> str:
        """The conclusion in words: what each method reaches, and the verdict on it, at each size."""
        lines = [f"{line}." for line in self.finding()]
        lines += [
            f"With {self.size_name(size)} examples: {'; '.join(self._said(name, size) for name in self.methods)}."
            for size in self.sizes
        ]
        return "\n".join(lines)

    def _pair(self, place: Place) -> tuple[np.ndarray, np.ndarray] | None:
        """Right and wrong answers of a method and of `against` (subsets, rows), from the subsets that both have."""
        own, other = self.runs[place], self.runs[self.against, place[1]]
        both = [(a, b) for a, b in zip(own, other, strict=True) if a is not None and b is not None]
        if not both:
            return None
        a, b = (np.stack([scores_of(run) for run in runs]) for runs in zip(*both, strict=True))
        return a, b

    def _outcomes(self, name: str) -> str:
        """ "undecided at 50 and 100, better at all 8,162"."""
        by_outcome: dict[str, list[str]] = {}
        for size in self.sizes:
            found = self.verdicts.get((name, size))
            by_outcome.setdefault(found.outcome if found else "not there", []).append(self.size_name(size))
        return ", ".join(f"{outcome} at {_and(sizes)}" for outcome, sizes in by_outcome.items())

    def _said(self, name: str, size: int) -> str:
        here = self.frame[(self.frame["method"] == name) & (self.frame["examples"] == size)]["accuracy"]
        if here.empty:
            return f"{name} has no finished run"
        spread = f" ({here.min():.1%} to {here.max():.1%})" if len(here) > 1 else ""
        found = self.verdicts.get((name, size))
        return f"{name} {here.mean():.1%}{spread}{f', {found}' if found else ''}"

    def size_name(self, size: int) -> str:
        """ "50", or "all 8,162"."""
        return f"{'all ' if size == self.total else ''}{size:,}"


def little(
    methods: Mapping[Method, float],
    *,
    model: str = "minilm",
    task: str = "rt",
    examples: Iterable[int] = SIZES,
    subsets: int = 10,
    steps: int = 200,
    batch: int = 8,
    margin: float = 0.015,
    store: Store | str | Path = "runs",
    fields: Mapping[str, Any] | None = None,
    **how: Any,
) -> Little:
    """Train every method on every draw, packed and resumable as any sweep: little({LoRA(): 2e-3, Probe(): 1e-3}).

    methods   each with its learning rate, tuned beforehand on validation; the probe is what the others are compared
              with where it is one of them, else the first is
    examples  how many training texts; 0 for all of them
    subsets   draws of each number, and seeds where the number is all; draw i trains with seed i
    steps     the same for every method and size
    fields    further ones of every recipe, such as max_length
    how       as `sweep` takes it: stop, note, size
    Raises: BadValue for a task without labels, no method, two that are called the same, too many examples, a margin
    that is none; as `sweep`.
    """
    named, data = by_name(methods), load_task(task)
    if subsets < 1:
        raise BadValue(f"subsets must be at least 1, not {subsets}")
    if not data.labels:
        raise BadValue(f"task {task} has no labels; little data asks for accuracy, on a task such as rt")
    check_margin(margin, shares=True)
    total, shared = len(data.train), {"steps": steps, "batch": batch, "validations": 0} | dict(fields or {})
    sizes = sorted({0 if size == total else size for size in examples}, key=lambda size: size or total)

    def recipe(method: Method, size: int, number: int) -> Recipe:
        draw: dict[str, Any] = {"examples": size, "subset": number} if size else {}
        seed = 0 if method.name in EXACT else number
        return Recipe(model, task, method, lr=methods[method], seed=seed, **draw, **shared)

    places = [(name, method, size) for name, method in named.items() for size in sizes]
    wanted = {(name, size): [recipe(method, size, n) for n in range(subsets)] for name, method, size in places}
    swept = sweep([recipe for recipes in wanted.values() for recipe in recipes], store, **how)
    runs = {run.recipe: run for run in swept.finished.runs}
    found = {(name, size or total): [runs.get(r) for r in recipes] for (name, size), recipes in wanted.items()}
    against = FLOOR if FLOOR in named else next(iter(named))
    return Little(found, against, total, margin)


def _and(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

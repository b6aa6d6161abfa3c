"""Items in which recipes that differ in one thing train side by side, and the answers of their runs are compared.

All share model, task, rate, steps, rows a step, head and order of the data per seed, as in the paper's own tables 5, 6
and 18, where only the matrices or the rank change. The last checkpoint counts; test is scored once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from lora_lab.errors import Failed
from lora_lab.experiments.budget import pack_timed
from lora_lab.experiments.plan import packs
from lora_lab.experiments.reproduce import fit
from lora_lab.experiments.reproduce.base import Item, Judged, Place, Plan, Row
from lora_lab.experiments.results import Runs
from lora_lab.experiments.sweep import sweep
from lora_lab.methods.base import Method
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.tasks import load_task

Scores = Mapping[str, np.ndarray]  # by name: (seeds, rows), right or wrong, or minus the loss of a row


class Trained(Item):
    """A subclass says which `methods`, by the names of its rows, and judges their `Scores`."""

    methods: ClassVar[Mapping[str, Method]]
    enough: ClassVar[int] = fit.ENOUGH  # steps that are worth a seed less

    def __init__(self, model: str = "minilm", task: str = "rt", lr: float = 2e-3, **fields: Any) -> None:
        self.model, self.task, self.lr = model, task, lr
        self.fields = {"batch": 16, "validations": 0, **fields}

    @abstractmethod
    def verdict(self, scores: Scores) -> Judged:
        """The rule applied to the answers."""

    def recipes(self, plan: Plan) -> dict[str, list[Recipe]]:
        """By row: a recipe for each seed."""
        seeds = range(plan.sizes["seeds"])
        return {name: [replace(own, seed=seed) for seed in seeds] for name, own in self._base(plan.sizes["steps"])}

    def expected(self, minutes: float) -> Plan:
        first = next(own for _, own in self._base(1))
        return fit.sized(len(self.methods), minutes, fit.quick(first), load_task(self.task), self.enough)

    def plan(self, place: Place) -> Plan:
        timing = pack_timed(packs([own for _, own in self._base(1)])[0])
        return fit.sized(len(self.methods), place.minutes, timing, load_task(self.task), self.enough)

    def run(self, plan: Plan, place: Place) -> dict[str, list[Run]]:
        recipes = self.recipes(plan)
        swept = sweep([one for own in recipes.values() for one in own], self.folder(place) / "runs", stop=place.stop)
        found = {run.recipe: run for run in swept.finished.runs}
        if missing := sum(one not in found for own in recipes.values() for one in own):
            why = next((run.error for run in swept.runs if run.error), None)
            raise Failed(f"{missing} runs are missing: {why or 'the time is over; the same call goes on where it was'}")
        return {name: [found[one] for one in own] for name, own in recipes.items()}

    def rows(self, found: Mapping[str, list[Run]]) -> list[Row]:
        return [Row(name, tuple(map(self.figure, runs)), self.axis) for name, runs in found.items()]

    def judge(self, found: Mapping[str, list[Run]]) -> Judged:
        return self.verdict({name: Runs(tuple(runs)).scores for name, runs in found.items()})

    def figure(self, run: Run) -> float:
        """What is shown of a run, in the item's unit."""
        return 100 * run.metrics["accuracy"]

    def _base(self, steps: int) -> list[tuple[str, Recipe]]:
        made = {"lr": self.lr, "steps": steps, **self.fields}
        return [(name, Recipe(self.model, self.task, method, **made)) for name, method in self.methods.items()]

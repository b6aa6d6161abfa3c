"""Items in which recipes that differ in one thing train side by side, and the answers of their runs are compared.

All share model, task, rate, steps, rows a step, head and order of the data per seed, as in the paper's own tables 5, 6
and 18, where only the matrices or the rank change. The last checkpoint counts; test is scored once.

Trained far enough to test a finding means: every training row was seen once (the paper's shortest training is two
passes), and where answers are right or wrong, every run that is judged is clear of a floor and of the ceiling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from lora_course.paper.reproduce import fit
from lora_course.paper.reproduce.base import Item, Kept, Place, Plan, Row
from lora_lab.errors import Failed
from lora_lab.experiments.budget import pack_timed
from lora_lab.experiments.plan import packs
from lora_lab.experiments.results import Runs
from lora_lab.experiments.statistics import Verdict, verdicts_of
from lora_lab.experiments.sweep import sweep
from lora_lab.methods.base import Method
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.tasks import load_task

CHANCE, CLEAR, CEILING = 50.0, 10.0, 95.0  # % of two classes; points above it; what leaves no room above
SEEN = "every training row was seen at least once"
LEARNED = f"{SEEN} and every run that is compared is at least {CLEAR:g} points above chance and below {CEILING:g} %"


class Trained(Item):
    """A subclass says which `methods`, by the names of its rows, and which `pairs` of them the rule compares."""

    methods: ClassVar[Mapping[str, Method]]
    enough: ClassVar[int] = fit.ONE_PASS  # steps that are worth a seed less
    most: ClassVar[int] = fit.MOST

    def __init__(self, model: str = "minilm", task: str = "rt", lr: float = 2e-3, **fields: Any) -> None:
        self.model, self.task, self.lr = model, task, lr
        self.fields = {"batch": 16, "validations": 0, **fields}

    def recipes(self, plan: Plan) -> dict[str, list[Recipe]]:
        """By row: a recipe for each seed."""
        seeds = range(plan.sizes["seeds"])
        return {name: [replace(own, seed=seed) for seed in seeds] for name, own in self._base(plan.sizes["steps"])}

    def expected(self, minutes: float) -> Plan:
        first = next(own for _, own in self._base(1))
        return fit.sized(len(self.methods), minutes, fit.quick(first), load_task(self.task), self.enough, self.most)

    def plan(self, place: Place) -> Plan:
        timing = pack_timed(packs([own for _, own in self._base(1)])[0])
        return fit.sized(len(self.methods), place.minutes, timing, load_task(self.task), self.enough, self.most)

    def run(self, plan: Plan, place: Place) -> dict[str, list[Run]]:
        recipes = self.recipes(plan)
        swept = sweep([one for own in recipes.values() for one in own], self.folder(place) / "runs", stop=place.stop)
        found = {run.recipe: run for run in swept.finished.runs}
        if missing := sum(one not in found for own in recipes.values() for one in own):
            why = next((run.error for run in swept.runs if run.error), None)
            raise Failed(f"{missing} runs are missing: {why or 'the time is over; the same call goes on where it was'}")
        return {name: [found[one] for one in own] for name, own in recipes.items()}

    def rows(self, found: Mapping[str, list[Run]]) -> list[Row]:
        return [Row(name, tuple(map(self.figure, runs)), self.axis, marks(runs)) for name, runs in found.items()]

    def verdicts(self, found: Mapping[str, Iterable[Run]]) -> Mapping[str, Verdict]:
        runs = {name: Runs(tuple(own)) for name, own in found.items()}
        return verdicts_of({name: (runs[a], runs[b]) for name, (a, b, _) in self.pairs.items()})

    def untested(self, kept: Kept) -> str:
        compared = {name for a, b, _ in self.pairs.values() for name in (a, b) if "accuracy" in self.axis}
        return unseen(kept, self.fields["batch"], self.task) or unlearned(kept, compared)

    def figure(self, run: Run) -> float:
        """What is shown of a run, in the item's unit."""
        return 100 * run.metrics["accuracy"]

    def _base(self, steps: int) -> list[tuple[str, Recipe]]:
        made = {"lr": self.lr, "steps": steps, **self.fields}
        return [(name, Recipe(self.model, self.task, method, **made)) for name, method in self.methods.items()]


def unseen(kept: Kept, batch: int, task: str) -> str:
    """ "48 steps saw 3 % of the training rows"; empty where all were seen."""
    steps = kept.sizes["steps"]
    share = steps * batch / len(load_task(task).train)
    return f"{steps} steps saw {100 * share:.0f} % of the training rows" if share < 1 else ""


def unlearned(kept: Kept, names: Iterable[str], floor: float = CHANCE, clear: float = CLEAR, of: str = "chance") -> str:
    """Which of these rows has a run that is not clear of the floor, or is at the ceiling; empty where none has."""
    for name in sorted(names):
        low, high = min(kept.rows[name]), max(kept.rows[name])
        if low < floor + clear:
            return f"{name} has a run at {low:.1f} %, which is not {clear:g} points above {of} ({floor:.1f} %)"
        if high > CEILING:
            return f"{name} has a run at {high:.1f} %, which leaves no room above"
    return ""


def marks(runs: Iterable[Run]) -> tuple[str, ...]:
    """A hash of what each run predicts on the test rows, the same whether it was just trained or read again."""
    said = (run.predictions for run in runs if run.predictions is not None)
    alike = (own.astype("<i8" if own.dtype.kind in "iub" else "<f4") for own in said)
    return tuple(hashlib.sha256(own.tobytes()).hexdigest()[:12] for own in alike)

"""Items in which methods are compared, each at a rate of its own: `experiments/compare.py` within so many minutes.

rates, growth, seeds    of each method, as many as leave enough steps; all methods get the same
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import Any, ClassVar

from lora_course.paper.reproduce import fit
from lora_course.paper.reproduce.base import Item, Kept, Place, Plan, Row
from lora_course.paper.reproduce.trained import marks, unseen
from lora_lab.errors import Failed
from lora_lab.experiments.budget import Timing, pack_timed
from lora_lab.experiments.compare import Comparison, Terms, compare
from lora_lab.experiments.contenders import contenders
from lora_lab.experiments.plan import packs
from lora_lab.experiments.results import Runs
from lora_lab.experiments.statistics import Verdict, verdicts_of
from lora_lab.experiments.tuning import axis_of

LADDER = ((4, 1, 3), (3, 1, 3), (3, 0, 2), (1, 0, 2))  # rates, growth, seeds


class Compared(Item):
    """A subclass says which methods, as `compare` takes them, and which `pairs`, by method name, the rule compares."""

    methods: ClassVar[str]
    enough: ClassVar[int] = fit.ONE_PASS  # steps that are worth a rate or a seed less
    model: str
    task: str
    most: ClassVar[int] = fit.MOST
    batch: int = 16
    prompts: int = 0

    def __init__(self, model: str = "", task: str = "", **fields: Any) -> None:
        self.model, self.task, self.fields = model or self.model, task or self.task, fields

    def terms(self, steps: int = 1, rates: int = 1, growth: int = 0, seeds: int = 1) -> Terms:
        """What all methods share."""
        return Terms(
            self.model, self.task, steps, self.batch, rates, growth, seeds, prompts=self.prompts, fields=self.fields
        )

    def expected(self, minutes: float) -> Plan:
        return self._sized(minutes, [fit.quick(self.terms().recipe(one)) for one in contenders(self.methods)])

    def plan(self, place: Place) -> Plan:
        terms = self.terms(*LADDER[0])
        tried = [[axis_of(one).set(terms.recipe(one), value) for value in axis_of(one).grid(terms.rates)]
                 for one in contenders(self.methods)]  # fmt: skip
        return self._sized(place.minutes, [pack_timed(packs(recipes)[0]) for recipes in tried])

    def run(self, plan: Plan, place: Place) -> Comparison:
        told = {**plan.sizes, "batch": self.batch, "prompts": self.prompts, **self.fields}
        made = compare(self.model, self.task, self.methods, place.folder, say=place.say, stop=place.stop, **told)
        if place.stop.is_set():
            raise Failed("the time is over before every run was done; the same call goes on where it was")
        if wrong := [f"{one.label}: {one.error}" for one in made.results if not one.runs]:
            raise Failed("; ".join(wrong))
        return made

    def verdicts(self, found: Comparison) -> Mapping[str, Verdict]:
        runs = {one.method.name: Runs(one.runs) for one in found.results}
        return verdicts_of({name: (runs[a], runs[b]) for name, (a, b, _) in self.pairs.items()})

    def untested(self, kept: Kept) -> str:
        return unseen(kept, self.batch, self.task)

    def rows(self, found: Comparison) -> list[Row]:
        return [
            Row(one.label, tuple(100 * v for v in one.values("accuracy")), self.axis, marks(one.runs))
            for one in found.results
        ]

    def _sized(self, minutes: float, timings: Sequence[Timing]) -> Plan:
        task = self.terms().loaded()
        tests = len(task.test) / len(task.validation)

        def with_these(rates: int, growth: int, seeds: int) -> tuple[dict[str, int], float, float]:
            later = self.prompts * fit.WRITING
            fixed = sum(3 * t.load + (rates + growth + seeds * tests) * t.validation + seeds * later for t in timings)
            slope = sum(t.step * (rates + growth + seeds) for t in timings)
            return {"rates": rates, "growth": growth, "seeds": seeds}, fixed, slope

        return fit.within(minutes, starmap(with_these, LADDER), self.enough, self.most)

"""Items that train: groups of recipes that differ in one thing, or methods with a tuned rate each.

Trained    every group at a fixed rate, as in the paper's tables 5, 6, 16 and 18
Compared   every method at the rate chosen on validation, through `lora_lab.experiments.compare`

    seconds = sum over groups of   packs * load + runs * (steps * step + scoring)

The number of steps follows from the minutes. A dry run estimates a step by the speed of one layer and may be off by a
factor of two; a run times a few real steps first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from lora_course.paper.reproduce.base import Item, Place, Plan, Row
from lora_lab.accounting.models import architecture_of
from lora_lab.errors import BadValue, Failed
from lora_lab.experiments.budget import FEWEST, SAFE, Timing, pack_timed
from lora_lab.experiments.compare import compare
from lora_lab.experiments.contenders import contenders
from lora_lab.experiments.results import Runs
from lora_lab.experiments.statistics import Verdict, verdicts_of
from lora_lab.experiments.study import Study
from lora_lab.training import device
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.tasks import load_task, typical_tokens

LAYER = 12 * 384**2  # numbers in the matrices of the layer that is timed
BESIDES = 1.6  # a whole step over its layers, measured: head, embeddings, optimizer and the gaps add to them
FULL = 1.5  # three products a matrix instead of two
LOAD, WRITING = 5.0, 2.0  # seconds, roughly: to load a pack; for a small language model to write an answer
PACK = 8  # most recipes that are timed side by side
ONE_PASS = 377  # steps of 16 that see each training row of rt once


class Trained(Item):
    """Groups of recipes; all share model, task, steps, and per seed the head and the order of the data.

    groups   label: a method, or {method: ..., recipe fields}
    metric   what a row shows of a run, and its factor
    ladder   sizes to try in turn, with fewer and fewer seeds until there are `enough` steps
    most     steps beyond which seeds are worth more
    fields   further fields of every recipe
    """

    groups: Mapping[str, Any]
    metric: tuple[str, float] = ("accuracy", 100)
    also: Sequence[tuple[str, str]] = ()
    lr: float = 2e-3
    passes: float = 1
    prompts: int = 0
    enough: int = ONE_PASS
    most: int = 400
    ladder: Sequence[tuple[int, int, int]] = ((0, 0, 5), (0, 0, 4), (0, 0, 3), (0, 0, 2))  # rates, growth, seeds
    fields: Mapping[str, Any] = {}

    def study(self, steps: int = 1, seeds: int = 1) -> Study:
        """The recipes by group; with `examples`, seed n trains on draw n."""
        shared = {"lr": self.lr, "batch": self.batch, "steps": steps, **self.fields}
        made = Study.of(self.model, self.task, self.groups, seeds, **shared)
        drawn = {
            label: [replace(one, subset=one.seed) if one.examples else one for one in own]
            for label, own in made.groups.items()
        }
        return replace(made, groups=drawn)

    def expected(self, minutes: float) -> Plan:
        return self.sized(minutes, [quick(one) for one in self.study().recipes])

    def plan(self, place: Place) -> Plan:
        alike: dict[str, list[Recipe]] = {}
        for one in self.study().recipes:
            alike.setdefault(one.method.name, []).append(one)
        timed = {name: pack_timed(_pack(own)) for name, own in alike.items()}
        return self.sized(place.minutes, [timed[one.method.name] for one in self.study().recipes])

    def sized(self, minutes: float, timings: Sequence[Timing]) -> Plan:
        """The first sizes of the ladder with enough steps, else the last. Raises: BadValue for too few minutes."""
        task = load_task(self.task)
        scored = len(task.test) / len(task.validation)
        for rates, growth, seeds in self.ladder:
            tuning = rates + growth
            fixed = (
                sum(one.load * (3 if tuning else 1) + (tuning + seeds * scored) * one.validation for one in timings)
                + len(timings) * seeds * self.prompts * WRITING
            )
            slope = max((tuning + seeds) * sum(one.step for one in timings), 1e-9)
            steps = int((SAFE * 60 * minutes - fixed) / slope)
            if steps >= self.enough:
                break
        if steps < FEWEST:
            needed = (fixed + FEWEST * slope) / SAFE / 60
            raise BadValue(
                f"{minutes:g} minutes are too few on this machine: {FEWEST} steps of two seeds take about {needed:.1f}"
            )
        steps = min(steps, self.most)
        tuned = {"rates": rates, "growth": growth} if tuning else {}
        return Plan({"steps": steps, **tuned, "seeds": seeds}, fixed + steps * slope)

    def trained(self, sizes: Mapping[str, Any], place: Place) -> Study:
        """The study with all its runs. Raises: Failed if some are missing."""
        folder = place.folder.parent / (self.store or self.name)
        made = self.study(sizes["steps"], sizes["seeds"]).run(folder / "runs", stop=place.stop)
        if made.missing:
            raise Failed(made.missing)
        return made

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        study, (metric, factor), rows = self.trained(sizes, place), self.metric, []
        for label in study.groups:
            values = tuple(factor * value for value in study.values(label, metric))
            rows.append(Row(label, values, self.axis, marks(study.runs(label))))
        found = study.verdicts({**self.pairs, **{f"{a} against {b}": (a, b) for a, b in self.also}})
        return rows, {name: found[name] for name in self.pairs}


class Compared(Trained):
    """Methods, each at its own tuned rate; `metrics` are rows instead of accuracy: {words: (name, factor)}."""

    methods: str
    metrics: Mapping[str, tuple[str, float]] = {}
    lr = 4e-4  # for timing; no method diverges at it
    ladder = ((4, 1, 3), (3, 1, 3), (3, 0, 2), (1, 0, 2))

    def study(self, steps: int = 1, seeds: int = 1) -> Study:
        self.groups = {one.name: one for one in contenders(self.methods)}
        return super().study(steps, seeds)

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        told = {**sizes, "batch": self.batch, "prompts": self.prompts, **self.fields}
        made = compare(self.model, self.task, self.methods, place.folder, say=place.say, stop=place.stop, **told)
        if place.stop.is_set():
            raise Failed("time ran out before every run was done; the same call continues")
        if wrong := [f"{one.label}: {one.error}" for one in made.results if not one.runs]:
            raise Failed("; ".join(wrong))
        runs = {one.method.name: Runs(one.runs) for one in made.results}
        return self.rows(made.results), verdicts_of(
            {name: (runs[a], runs[b]) for name, (a, b, _) in self.pairs.items()}
        )

    def rows(self, results: Iterable[Any]) -> list[Row]:
        """A row for each method, or for each metric and method."""
        if not self.metrics:
            values = ((one, tuple(100 * value for value in one.values("accuracy"))) for one in results)
            return [Row(one.label, each, self.axis, marks(one.runs)) for one, each in values]
        return [
            Row(f"{words}, {one.method.name}", tuple(factor * v for v in one.values(name)), words, marks(one.runs))
            for words, (name, factor) in self.metrics.items()
            for one in results
        ]


def marks(runs: Iterable[Run]) -> tuple[str, ...]:
    """A hash of what each run predicts on the test rows, the same whether it was just trained or read again."""
    said = (run.predictions for run in runs if run.predictions is not None)
    alike = (own.astype("<i8" if own.dtype.kind in "iub" else "<f4") for own in said)
    return tuple(hashlib.sha256(own.tobytes()).hexdigest()[:12] for own in alike)


def _pack(alike: Sequence[Recipe]) -> list[Recipe]:
    """Recipes to time side by side; a single one is timed at several rates."""
    return list(alike[:PACK]) if len(alike) > 1 else [replace(alike[0], lr=alike[0].lr / n) for n in (1, 2, 3, 4)]


def quick(recipe: Recipe) -> Timing:
    """The timing of one run, from the machine's speed. Raises: BadValue, NotFound for what is not there."""
    task = load_task(recipe.task, max_length=recipe.max_length)
    matrices = architecture_of(recipe.model, task.num_labels).modules
    layers = sum(m.weight * m.count for m in matrices if m.kind in ("linear", "expert")) / LAYER
    tokens = typical_tokens(task)
    seconds = layers * BESIDES / best_speed(device.pick_device())  # a token
    step = recipe.batch * tokens * seconds * (FULL if recipe.method.trains_base else 1.0)
    return Timing(LOAD, step, len(task.validation) * tokens * seconds / 3)


@cache
def best_speed(where: str) -> float:
    """Tokens a second through one layer of MiniLM's size, forward and back, in rows of 32 and a step of 4,096."""
    choice = device.choose(32, device=where)
    return 4096 / device.time_layer(where, choice.torch_dtype, choice.attention, 32, total=4096)

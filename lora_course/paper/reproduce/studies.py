"""Items that train: groups of recipes that differ in one setting, or methods that each have a tuned learning rate.

    seconds = sum over groups of   packs * load + runs * (steps * step + scoring)

The number of steps follows from the time budget. A dry run estimates the time of a step from the speed of one layer and
may be off by a factor of two; a run first measures a few real steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from statistics import fmean
from typing import Any

from lora_course.paper.reproduce import Item, Place, Plan, Row
from lora_lab import Recipe, compare
from lora_lab.accounting.models import architecture_of
from lora_lab.errors import BadValue, Failed
from lora_lab.experiments.compare import MIN_STEPS, TIME_FRACTION, Timing, pack_timed
from lora_lab.experiments.results import Runs
from lora_lab.experiments.statistics import Verdict, verdicts_of
from lora_lab.experiments.study import Study, contenders, label
from lora_lab.training import device
from lora_lab.training.tasks import load_task, typical_tokens

LAYER = 12 * 384**2  # parameters in the matrices of the timed layer
BESIDES = 1.6  # measured ratio of the time of a step (with head, embeddings, optimizer, gaps) to that of its layers
FULL = 1.5  # full fine-tuning: three products per matrix instead of two
LOAD, WRITING = 5.0, 2.0  # approximate seconds: to load a pack; for a small language model to write an answer
PACK = 8  # maximum number of recipes timed side by side


class Trained(Item):
    """Groups at a fixed rate (tables 5, 6, 16, 18) sharing model, task and steps; a seed sets head and data order."""

    def study(self, steps: int = 1, seeds: int = 1) -> Study:
        """Build the study, which holds the recipes of each group."""
        shared = {"lr": self.lr, "batch": self.batch, "steps": steps, **self.fields}
        if not self.rates:
            return Study.of(self.model, self.task, self.groups, seeds, **shared)
        at_rates = {
            _at(label, lr): {"method": method, "lr": lr} for label, method in self.groups.items() for lr in self.rates
        }
        return Study.of(self.model, self.task, at_rates, seeds, **shared, validations=1)

    def expected(self, minutes: float) -> Plan:
        return self.sized(minutes, [quick(recipe) for recipe in self.study().recipes])

    def plan(self, place: Place) -> Plan:
        by_method: dict[str, list[Recipe]] = {}
        for recipe in self.study().recipes:
            by_method.setdefault(recipe.method.name, []).append(recipe)
        timings = {}
        for name, own in by_method.items():  # a single recipe is timed as a pack with several learning rates
            side_by_side = own[:PACK] if len(own) > 1 else [replace(own[0], lr=own[0].lr / n) for n in (1, 2, 3, 4)]
            timings[name] = pack_timed(side_by_side)
        return self.sized(place.minutes, [timings[recipe.method.name] for recipe in self.study().recipes])

    def sized(self, minutes: float, timings: Sequence[Timing]) -> Plan:
        """Pick the first sizes that leave enough steps, or else the last ones. Raises: BadValue for too few minutes."""
        task = load_task(self.task)
        scored = len(task.test) / len(task.validation)
        for rates, growth, seeds in self.ladder:
            tuning = rates + growth
            fixed = (
                sum(t.load * (3 if tuning else 1) + (tuning + seeds * scored) * t.validation for t in timings)
                + len(timings) * seeds * self.prompts * WRITING
            )
            slope = max((tuning + seeds) * sum(timing.step for timing in timings), 1e-9)
            steps = int((TIME_FRACTION * 60 * minutes - fixed) / slope)
            if steps >= self.enough:
                break
        if steps < MIN_STEPS:
            needed = (fixed + MIN_STEPS * slope) / TIME_FRACTION / 60
            takes = f"{MIN_STEPS} steps with two seeds take about {needed:.1f} minutes"
            raise BadValue(f"{minutes:g} minutes is not enough on this machine: {takes}")
        steps = min(steps, self.most)
        tuned = {"rates": rates, "growth": growth} if tuning else {}
        return Plan({"steps": steps, **tuned, "seeds": seeds}, fixed + steps * slope)

    def trained(self, sizes: Mapping[str, Any], place: Place) -> Study:
        """Train the study's missing and failed runs and return it. Raises: Failed if any run is still missing."""
        folder = place.folder.parent / (self.store or self.name)
        study = self.study(sizes["steps"], sizes["seeds"]).run(folder / "runs", stop=place.stop, again=True)
        if study.missing:
            raise Failed(study.missing)
        return study

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        study, (metric, factor), rows = self.trained(sizes, place), self.metric, []
        if self.rates:  # keep each group twice: at the best rate of `tuned_at`, and at its own best rate

            def loss(label: str, lr: float) -> float:
                return fmean(run.history["validation"][-1]["loss"] for run in study.runs(_at(label, lr)))

            best = {label: min(self.rates, key=partial(loss, label)) for label in self.groups}
            chosen = {label: study.groups[_at(label, best[self.tuned_at])] for label in self.groups}
            own = {f"{label}, own rate": study.groups[_at(label, lr)] for label, lr in best.items()}
            study = replace(study, groups=chosen | own)
        for name, recipes in study.groups.items():
            values = tuple(factor * run.metrics[metric] for run in study.runs(name))
            unit = f"{self.axis}, rate {recipes[0].lr:g}" if self.rates else self.axis
            rows.append(Row(name, values, unit))
        return rows, study.verdicts({**self.pairs, **self.also})


class Compared(Trained):
    """Methods, each at its own tuned learning rate, with a row for each of the `metrics`: {label: (name, factor)}."""

    def __init__(self, name: str, **changes: Any) -> None:
        super().__init__(name, **changes)
        self.groups = {label(method): method for method in contenders(self.methods)}

    def measured(self, sizes: Mapping[str, Any], place: Place) -> tuple[list[Row], Mapping[str, Verdict]]:
        options = {**sizes, "batch": self.batch, "prompts": self.prompts, "again": True, **self.fields}
        study = compare(self.model, self.task, self.methods, place.folder, say=place.say, stop=place.stop, **options)
        if place.stop.is_set():
            raise Failed("time ran out before every run was done; run the same command again to resume")
        if errors := [f"{row['label']}: {row['error']}" for row in study.rows if not row["runs"]]:
            raise Failed("; ".join(errors))
        runs = {label: Runs(tuple(own)) for label, own in study.runs.items()}
        pairs = {name: (runs[a], runs[b]) for name, (a, b, _) in {**self.pairs, **self.also}.items()}
        rows = []
        for shown, (name, factor) in self.metrics.items():
            for row in study.rows:
                end, values = " (at an end)" if row["edge"] else "", row.get(name, {}).get("each", ())
                unit = f"{shown}, rate {row['lr']:g}{end} of {[one['lr'] for one in row['tried']]}"
                rows.append(Row(f"{shown}, {row['label']}", tuple(factor * v for v in values), unit))
        return rows, verdicts_of(pairs)


def _at(label: str, lr: float) -> str:
    return f"{label} at {lr:g}"


def quick(recipe: Recipe) -> Timing:
    """Estimate the timing of one run from the machine's speed. Raises: BadValue or NotFound; see `load_task`."""
    task = load_task(recipe.task, max_length=recipe.max_length)
    matrices = architecture_of(recipe.model, task.num_labels).modules
    layers = sum(m.in_features * m.out_features * m.count for m in matrices if m.kind in ("linear", "expert")) / LAYER
    tokens = typical_tokens(task)
    seconds = layers * BESIDES / best_speed(device.available_devices()[0])  # per token
    step = recipe.batch * tokens * seconds * (FULL if recipe.method.trains_base else 1.0)
    return Timing(LOAD, step, len(task.validation) * tokens * seconds / 3)


@cache
def best_speed(where: str) -> float:
    """Measure tokens per second, forward and backward, in a layer of MiniLM's size (4,096 tokens, in rows of 32)."""
    choice = device.choose(32, device=where)
    return 4096 / device.time_layer(where, device.DTYPES[choice.dtype], choice.attention, 32, total=4096)

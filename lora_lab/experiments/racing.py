"""A sweep that chooses one configuration and stops those that fall behind: `sweep(..., choose=True)`.

    one seed of each -> from half-time on those behind stop -> the other seeds of the rest, in the same way
    -> the best mean on validation is chosen -> it and its rivals are scored on the test rows

A configuration is a recipe without its seed; its seeds stop together. Runs of one seed see the same rows at each step,
so their training losses are paired, and on rows not seen before a training loss is a free validation. Source: racing,
Maron and Moore 1994 (not read here); numbers: benchmarks/early_exit.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from lora_lab.errors import BadValue
from lora_lab.experiments.statistics import LEVEL, Pair, holm
from lora_lab.metrics import goodness, main_metric, metric
from lora_lab.training.loop import Member
from lora_lab.training.recipe import Recipe, describe, recipe_from
from lora_lab.training.runs import FINISHED, Run, Store

BEHIND = "behind"  # the status of a stopped run; in its environment, the hash of a run that led
UNSCORED = "unscored"  # the status of a run that was trained and validated, but not scored on the test rows
SCORING, VALIDATED = "scoring_seconds", "validation"  # in the environment; the file of `Member.right`
EVERY, WINDOW = 10, 25  # steps between two looks, and how many losses each averages
GAP, WAY, LED, FLAT = 0.10, 0.6, 0.10, 0.01  # nats, except WAY, see `behind`
OWN = ("method", "lr", "weight_decay", "warmup", "clip", "seed")  # the settings in which configurations may differ
BOUND, MEASURED = 0.35, {"model": "minilm", "task": "rt", "steps": 200, "batch": 8}
EVIDENCE = "14 stored grids of MiniLM on rt, 200 steps of 8 rows: python -m benchmarks.early_exit"


def behind(curves: Mapping[Any, Sequence[Sequence[float]]], step: int, steps: int) -> dict[Any, Any]:
    """The configurations to stop after this step, each with the one that leads.

    curves    training losses of each configuration, (seeds, at least `step`), in nats, all with the same seeds
    From half-time on, every 10 steps, the means of the last 25 losses are compared. Once the lowest is LED below the
    start (the first ten losses), a configuration stops if it is above the lowest by more than GAP and by more than the
    share WAY of what the lowest has gained, or if it is within FLAT of the start.
    """
    if step % EVERY or not steps / 2 <= step < steps - 1 or not curves:
        return {}
    start = fmean(loss for own in curves.values() for one in own for loss in one[:10])
    now = {name: fmean(loss for one in own for loss in one[:step][-WINDOW:]) for name, own in curves.items()}
    leader = min(now, key=lambda name: now[name])
    gained = start - now[leader]
    if gained < LED:
        return {}
    limit = min(now[leader] + max(GAP, WAY * gained), start - FLAT)
    return {name: leader for name, loss in now.items() if loss > limit}


class Race:
    """Which runs of a sweep that chooses train next, and which of those that train stop.

    Raises: BadValue if the recipes differ in model, task or length, in their seeds, or have no validation.
    """

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        self.steps, self.recipes = recipes[0].steps, {recipe: replace(recipe, seed=0) for recipe in recipes}
        self.seeds = list(dict.fromkeys(recipe.seed for recipe in recipes))
        self.configurations = list(dict.fromkeys(self.recipes.values()))
        shared = [{k: v for k, v in one.settings().items() if k not in OWN} for one in self.configurations]
        if any(one != shared[0] for one in shared):
            raise BadValue("choose compares configurations of one model, task and length: make a sweep of each")
        if len(recipes) < len(self.seeds) * len(self.configurations):
            raise BadValue("choose compares configurations by the same seeds: give each all of them, and no --share")
        if not recipes[0].validations:
            raise BadValue("choose goes by validation: give validations=1 or more, not 0")
        self.losses: dict[Recipe, list[float]] = {}
        self.out: dict[Recipe, str] = {}  # configurations that are behind, and the hash of a run that led
        self.failed: set[Recipe] = set()
        self.racing: list[int] = []  # the seeds of this stage
        self.pauses = False

    def note(self, run: Run) -> None:
        """Take a run that has ended into account."""
        own, self.losses[run.recipe] = self.recipes[run.recipe], run.history["loss"]
        if run.status == BEHIND:
            self.out[own] = run.environment[BEHIND]
        elif run.status == "failed":
            self.failed.add(own)

    def stages(self) -> Iterator[list[Recipe]]:
        """The runs to train, one list after the other; a list repeats runs of the one before that have ended.

        If a list takes several packs, they pause at half-time (`pauses`), and the next list packs the rest together.
        """
        for seeds in self.seeds[:1], self.seeds[1:]:
            self.racing, over = seeds, {*self.out, *self.failed}
            stage = [one for one, own in self.recipes.items() if one.seed in seeds and own not in over]
            for self.pauses in (True, False):
                yield stage

    def judge(self, members: Sequence[Member], step: int) -> None:
        """End the runs of configurations that are behind, also behind those of other packs; or pause at half-time."""
        if step % EVERY or step < self.steps / 2:
            return
        self.losses |= {member.recipe: [seen.loss for seen in member.history.progress] for member in members}
        left = [own for own in self.configurations if own not in self.out]
        known = {own: [self.losses.get(replace(own, seed=seed), []) for seed in self.racing] for own in left}
        there = {own: losses for own, losses in known.items() if min(map(len, losses)) >= step}
        for own, leader in behind(there, step, self.steps).items():
            self.out[own] = replace(leader, seed=self.racing[0]).hash
        for member in members:
            if self.recipes[member.recipe] in self.out:
                member.end(BEHIND)
            elif self.pauses and step - EVERY < self.steps / 2:
                member.end("stopped")

    def choice(self, store: Store, runs: Collection[Run]) -> Choice:
        """The configuration with the best mean on validation, and its rivals, from all runs that were made."""
        found: dict[Recipe, list[Run]] = {own: [] for own in self.configurations}
        for run in sorted(runs, key=lambda run: run.recipe.seed):
            found[self.recipes[run.recipe]].append(run)
        ended = (*FINISHED, UNSCORED)
        whole = [own for own in found.values() if sum(run.status in ended for run in own) == len(self.seeds)]
        placed = _with_rivals(store, sorted(whole, key=_quality, reverse=True))
        stopped = [
            {
                "recipe": _settings(own),
                "step": max(len(run.history["loss"]) for run in cut),
                "seeds": [run.recipe.seed for run in cut],
                "behind": self.out[own],
            }
            for own, made in found.items()
            if (cut := [run for run in made if run.status == BEHIND])
        ]
        every, taken = len(self.recipes), sum(len(run.history["loss"]) for run in runs)
        spared = sum(self.steps - len(run.history["loss"]) for run in runs if run.status == BEHIND)
        steps, tests = spared + self.steps * (every - len(runs)), every - sum(bool(run.metrics) for run in runs)
        scoring = [run.environment[SCORING] for run in runs if SCORING in run.environment] or [0.0]
        seconds = steps * (sum(run.seconds for run in runs) - sum(scoring)) / max(taken, 1) + tests * fmean(scoring)
        saved = {"steps": steps, "of_steps": every * self.steps, "tests": tests, "of_tests": every, "seconds": seconds}
        return Choice(placed, stopped, saved)


@dataclass(frozen=True)
class Choice:
    """The outcome of a sweep that chooses.

    placed    the runs of the chosen configuration, then of each rival
    stopped   [{recipe, step, seeds, behind}]; `behind` is the hash of a run that led
    saved     {steps, of_steps, tests, of_tests, seconds}, against training and scoring every run; seconds are estimated
    """

    placed: list[list[Run]]
    stopped: list[dict[str, Any]]
    saved: dict[str, Any]

    @property
    def runs(self) -> list[Run]:
        """The runs to score on the test rows."""
        return [run for own in self.placed for run in own]

    def to_json(self) -> dict[str, Any]:
        """What `lora-lab sweep --choose --json` adds to a sweep's, see docs/commands.md."""
        placed = [self._placed(own) for own in self.placed]
        chosen = placed[0] if placed else None
        measured = chosen and chosen["metric"] == "accuracy" and MEASURED.items() <= chosen["recipe"].items()
        bound = {"points": BOUND if measured else None, "level": 0.95, "from": EVIDENCE}
        outcome = {"chosen": chosen, "rivals": placed[1:], "stopped": self.stopped}
        return {**outcome, "saved": self.saved, "regret_bound": bound}

    def _placed(self, own: Sequence[Run]) -> dict[str, Any]:
        last = [run.history["validation"][-1] for run in own]
        name = main_metric(last[0])
        means = {"validation": fmean(one[name] for one in last)}
        if all(run.metrics for run in own):
            means["test"] = fmean(run.metrics[name] for run in own)
        runs = {"seeds": [run.recipe.seed for run in own], "runs": [run.recipe.hash for run in own]}
        return {"recipe": _settings(own[0].recipe), "metric": name, **means, **runs}

    def __str__(self) -> str:
        found, lines = self.to_json(), []
        for role, one in [("chosen", found["chosen"]), *(("rival ", one) for one in found["rivals"])]:
            names = [name for name in ("validation", "test") if name in (one or ())]
            means = ", ".join(f"{metric(one['metric']).text(one[name])} on {name}" for name in names)
            lines.append(f"{role}  {_words(one)}: {one['metric']} {means}" if one else f"{role}  none")
        lines += [f"stopped at step {one['step']}: {_words(one)}" for one in self.stopped]
        saved = "{steps:,} of {of_steps:,} steps, {tests} of {of_tests} test scores; about {seconds:.0f} s"
        points = found["regret_bound"]["points"]
        at_most = "not known here" if points is None else f"at most {points} points"
        return "\n".join([*lines, f"saved   {saved.format(**self.saved)}", f"regret  {at_most}: {EVIDENCE}"])


def _with_rivals(store: Store, placed: list[list[Run]]) -> list[list[Run]]:
    """The first configuration and those that validation does not tell from it: paired over seeds and rows, Holm's.

    If validation rows were not kept, or labels are numbers and no row has a score, nothing is told apart.
    """
    rows = [[store.rows(run.recipe, VALIDATED) for run in own] for own in placed]
    p_values = []
    for own in rows[1:]:
        p_values.append(1.0)
        if not any(row is None for row in own + rows[0]):
            pair = Pair(np.array(own, dtype=float), np.array(rows[0], dtype=float), margin=0.015)
            p_values[-1] = pair.p_difference() if pair.difference < 0 else 1.0
    return placed[:1] + [own for own, p in zip(placed[1:], holm(p_values), strict=True) if p >= LEVEL]


def _quality(runs: Sequence[Run]) -> tuple[float, float]:
    """The mean on validation over seeds, higher is better; of equals, the lower loss."""
    last = [run.history["validation"][-1] for run in runs]
    return fmean(map(goodness, last)), -fmean(one["loss"] for one in last)


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.settings().items() if name != "seed"}


def _words(one: Mapping[str, Any]) -> str:
    recipe = recipe_from(one["recipe"])
    return f"{describe(recipe.method)}, lr {recipe.lr:g}"

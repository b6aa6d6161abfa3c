"""One configuration is chosen from many, and those that lie behind stop early: `sweep(..., choose=True)`.

    a seed of each -> from half-time on those behind stop -> the other seeds of the rest, in the same way
    -> the best mean on validation is chosen -> it and its rivals are scored on the test rows

A configuration is a recipe whatever its seed; its seeds stay or go together. Runs of one seed see the same rows at each
step, so their training losses are paired; and on rows not seen before, a training loss is a validation that costs
nothing. Source: racing, Maron and Moore 1994 (not read here); numbers: tests/benchmarks/early_exit.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from lora_lab.errors import BadValue
from lora_lab.experiments.choice import said
from lora_lab.experiments.statistics import LEVEL, Pair, holm
from lora_lab.training.lane import Lane
from lora_lab.training.metrics import goodness, main_metric
from lora_lab.training.recipe import Recipe, describe, recipe_from
from lora_lab.training.runs import FINISHED, Run, Store

BEHIND = "behind"  # the status of a run that was stopped; in its environment so is called a run that led
UNSCORED = "unscored"  # of one that was trained and validated, and whose test rows were not looked at
WHOLE = (*FINISHED, UNSCORED)
SCORING, VALIDATED = "scoring_seconds", "validation"  # in the environment; the file of `Lane.right`
EVERY, WINDOW = 10, 25  # steps between two looks, and those whose losses are averaged
GAP, WAY, LED, FLAT = 0.10, 0.6, 0.10, 0.01  # nats, but for WAY: see `behind`
MARGIN = 0.015  # which `Pair` asks for
OWN = ("method", "lr", "weight_decay", "warmup", "clip", "seed")  # in what configurations may differ
BOUND, MEASURED = 0.35, {"model": "minilm", "task": "rt", "steps": 200, "batch": 8}
EVIDENCE = "14 stored grids of MiniLM on rt, 200 steps of 8 rows: python -m tests.benchmarks.early_exit"
Key = TypeVar("Key")


def behind(curves: Mapping[Key, Sequence[Sequence[float]]], step: int, steps: int) -> dict[Key, Key]:
    """Those that stop after this step, each with the one that leads; mostly nobody.

    curves    the training losses of each configuration, (seeds, at least `step`), in nats, of the same seeds
    From half-time on, every 10 steps, the mean of the last 25 losses is compared. Once the lowest has come LED below
    the start (the first ten losses), those stop that lie above it by more than GAP and by more than the share WAY of
    the way it has come, and those within FLAT of the start.
    """
    if step % EVERY or not steps / 2 <= step < steps - 1 or not curves:
        return {}
    start = fmean(loss for own in curves.values() for one in own for loss in one[:10])
    now = {name: fmean(loss for one in own for loss in one[:step][-WINDOW:]) for name, own in curves.items()}
    leader = min(now, key=lambda name: now[name])
    way = start - now[leader]
    if way < LED:
        return {}
    gap = max(GAP, WAY * way)
    return {name: leader for name, loss in now.items() if loss > min(now[leader] + gap, start - FLAT)}


def configuration(recipe: Recipe) -> Recipe:
    """The same for all seeds."""
    return replace(recipe, seed=0)


class Race:
    """The runs of a sweep that chooses: which are to be made next, and which of those at work stop.

    Raises: BadValue for recipes of unlike rows or length, those with other seeds than the rest, and without validation.
    """

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        self.steps, self.recipes = recipes[0].steps, {recipe: configuration(recipe) for recipe in recipes}
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
        self.out: dict[Recipe, str] = {}  # configurations that lie behind, and a run of the one that led
        self.failed: set[Recipe] = set()
        self.racing: list[int] = []
        self.pauses = False

    def note(self, run: Run) -> None:
        """A run that has ended."""
        own, self.losses[run.recipe] = self.recipes[run.recipe], run.history["loss"]
        if run.status == BEHIND:
            self.out[own] = run.environment[BEHIND]
        elif run.status == "failed":
            self.failed.add(own)

    def stages(self) -> Iterator[list[Recipe]]:
        """The runs to be made, one list after the other; those of a list that have ended are in the next one again.

        Where a list takes several packs, `pauses` stands: each stops at half-time, and what is left of all of them is
        laid together for the other half, which is the next list.
        """
        for seeds in self.seeds[:1], self.seeds[1:]:
            over = {*self.out, *self.failed}
            stage = [one for one, own in self.recipes.items() if one.seed in seeds and own not in over]
            for self.pauses in (True, False):
                self.racing = seeds
                yield stage

    def judge(self, lanes: Sequence[Lane], step: int) -> None:
        """End the lanes of configurations that lie behind, be it behind those of other packs; or pause at half-time."""
        if step % EVERY or step < self.steps / 2:
            return
        self.losses |= {lane.recipe: [seen.loss for seen in lane.history.progress] for lane in lanes}
        left = [own for own in self.configurations if own not in self.out]
        known = {own: [self.losses.get(replace(own, seed=seed), []) for seed in self.racing] for own in left}
        there = {own: losses for own, losses in known.items() if min(map(len, losses)) >= step}
        for own, leader in behind(there, step, self.steps).items():
            self.out[own] = replace(leader, seed=self.racing[0]).hash
        for lane in lanes:
            if self.recipes[lane.recipe] in self.out:
                lane.end(BEHIND)
            elif self.pauses and step - EVERY < self.steps / 2:
                lane.end("stopped")

    def choice(self, store: Store, runs: Collection[Run]) -> Choice:
        """What these runs, all that were made, say: the best mean on validation, and its rivals."""
        found: dict[Recipe, list[Run]] = {own: [] for own in self.configurations}
        for run in runs:
            found[self.recipes[run.recipe]].append(run)
        whole = [own for own in found.values() if sum(run.status in WHOLE for run in own) == len(self.seeds)]
        paired = (sorted(own, key=lambda run: run.recipe.seed) for own in whole)
        placed = sorted((Placed(tuple(own)) for own in paired), key=lambda one: one.goodness, reverse=True)
        ended = {own: [run for run in all_ if run.status == BEHIND] for own, all_ in found.items()}
        stopped = tuple(
            {"recipe": _settings(own), "step": max(len(run.history["loss"]) for run in cut)}
            | {"seeds": [run.recipe.seed for run in cut], "behind": self.out[own]}
            for own, cut in ended.items()
            if cut
        )
        return Choice(tuple(placed[:1] + rivals(store, placed)), stopped, self._saved(runs))

    def _saved(self, runs: Collection[Run]) -> dict[str, Any]:
        """Against training every run to the end and scoring each; the seconds at what these runs took."""
        every, taken = len(self.recipes), sum(len(run.history["loss"]) for run in runs)
        cut = sum(self.steps - len(run.history["loss"]) for run in runs if run.status == BEHIND)
        steps, tests = cut + self.steps * (every - len(runs)), every - sum(bool(run.metrics) for run in runs)
        scoring = [run.environment[SCORING] for run in runs if SCORING in run.environment]
        seconds = steps * (sum(run.seconds for run in runs) - sum(scoring)) / max(taken, 1)
        seconds += tests * (fmean(scoring) if scoring else 0.0)
        return {"steps": steps, "of_steps": every * self.steps, "tests": tests, "of_tests": every, "seconds": seconds}


@dataclass(frozen=True)
class Placed:
    """A configuration that was trained to the end with every seed."""

    runs: tuple[Run, ...]

    @property
    def metric(self) -> str:
        """What it is chosen by."""
        return main_metric(_validation(self.runs[0]))

    @property
    def goodness(self) -> tuple[float, float]:
        """The mean on validation over seeds, higher is better; of equals the lower loss."""
        last = [_validation(run) for run in self.runs]
        return fmean(map(goodness, last)), -fmean(one["loss"] for one in last)

    def to_json(self) -> dict[str, Any]:
        """The settings without a seed, its runs, and means over seeds; no test where that was not scored."""
        means = {"validation": fmean(_validation(run)[self.metric] for run in self.runs)}
        if all(run.metrics for run in self.runs):
            means["test"] = fmean(run.metrics[self.metric] for run in self.runs)
        seeds = {"seeds": [run.recipe.seed for run in self.runs], "runs": [run.recipe.hash for run in self.runs]}
        return {"recipe": _settings(self.runs[0].recipe), "metric": self.metric, **means, **seeds}

    def __str__(self) -> str:
        told = self.to_json()
        means = ", ".join(
            f"{said(told[name], self.metric)} on {name}" for name in ("validation", "test") if name in told
        )
        return f"{_words(self.runs[0].recipe)}: {self.metric} {means}"


@dataclass(frozen=True)
class Choice:
    """What a sweep chose: the configuration and its rivals, which validation cannot tell from it, best first."""

    placed: tuple[Placed, ...]
    stopped: tuple[dict[str, Any], ...]  # recipe, step, seeds, and in `behind` a run of the configuration that led
    saved: dict[str, Any]

    @property
    def runs(self) -> list[Run]:
        """Those that are scored on the test rows."""
        return [run for one in self.placed for run in one.runs]

    def regret_bound(self) -> dict[str, Any]:
        """How much a sweep of all runs to the end may be better on test, in points; None where nothing was measured."""
        within = bool(self.placed) and all(getattr(self.runs[0].recipe, k) == v for k, v in MEASURED.items())
        points = BOUND if within and self.placed[0].metric == "accuracy" else None
        return {"points": points, "level": 0.95, "from": EVIDENCE}

    def to_json(self) -> dict[str, Any]:
        """As `lora-lab sweep --choose --json` prints it beside the runs."""
        placed = [one.to_json() for one in self.placed]
        told = {"chosen": placed[0] if placed else None, "rivals": placed[1:], "stopped": list(self.stopped)}
        return {**told, "saved": self.saved, "regret_bound": self.regret_bound()}

    def __str__(self) -> str:
        lines = [f"{'rival ' if n else 'chosen'}  {one}" for n, one in enumerate(self.placed)] or ["chosen  none"]
        for one in self.stopped:
            lines.append(f"stopped at step {one['step']}: {_words(recipe_from(one['recipe']))}")
        bound, saved = self.regret_bound(), self.saved
        lines.append("saved   {steps:,} of {of_steps:,} steps, {tests} of {of_tests} test scores".format(**saved))
        lines[-1] += f"; about {saved['seconds']:.0f} s"
        at_most = "not known here" if bound["points"] is None else f"at most {bound['points']} points"
        return "\n".join([*lines, f"regret  {at_most}: {bound['from']}"])


def rivals(store: Store, placed: Sequence[Placed]) -> list[Placed]:
    """Those that the validation rows do not tell from the first: paired over seeds and rows, Holm over all.

    Also those whose validation rows were not kept, and all where labels are numbers, of which no row has a score.
    """
    first, *others = [[store.rows(run.recipe, VALIDATED) for run in one.runs] for one in placed] or [[]]
    p = [1.0 if any(row is None for row in own + first) else _p_worse(own, first) for own in others]
    return [one for one, told in zip(placed[1:], holm(p) >= LEVEL, strict=True) if told]


def _p_worse(own: Sequence[Any], first: Sequence[Any]) -> float:
    pair = Pair(np.stack(own).astype(float), np.stack(first).astype(float), MARGIN)
    return pair.p_difference() if pair.difference < 0 else 1.0


def _validation(run: Run) -> dict[str, float]:
    return run.history["validation"][-1]


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.settings().items() if name != "seed"}


def _words(recipe: Recipe) -> str:
    return f"{describe(recipe.method)}, lr {recipe.lr:g}"

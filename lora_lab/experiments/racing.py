"""Choose one configuration in a sweep, and stop configurations that fall behind: `sweep(..., choose=True)`.

    train one seed per configuration -> from halfway on, stop weak ones -> train the others' remaining seeds likewise
    -> choose the best mean on validation -> on the test rows, score it and its rivals (within one standard error)

The seeds of a configuration (a recipe without its seed) stop together. Runs with the same seed see the same rows at
each step, so their training losses are paired. On new rows, training loss is as informative as validation loss.
The thresholds come from benchmarks/early_exit.py. The method is racing (Maron and Moore 1994, which we have not read).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from lora_lab.errors import BadValue
from lora_lab.experiments.statistics import Pair
from lora_lab.metrics import goodness, main_metric, metric
from lora_lab.training.member import Member
from lora_lab.training.recipe import Recipe, describe, recipe_from
from lora_lab.training.runs import FINISHED, Run, Store

BEHIND = "behind"  # the status of a stopped run; its environment has a leading run's hash
UNSCORED = "unscored"  # the status of a run that was trained and validated but not scored on the test rows
VALIDATED = "validation"  # the file name for `Member.right`
CHECK_EVERY, WINDOW = 10, 25  # steps between checks, and number of losses averaged per check
MIN_GAP, RELATIVE_GAP, MIN_PROGRESS, FLAT = 0.10, 0.6, 0.10, 0.01  # nats, except RELATIVE_GAP; see `behind`
MAY_DIFFER = ("method", "lr", "weight_decay", "warmup", "clip", "seed")  # configurations may differ in these
BOUND = 0.35
MEASURED = {"model": "minilm", "task": "rt", "steps": 200, "batch": 8, "max_length": None, "dropout": False}
EVIDENCE = "14 stored grids of MiniLM on rt, 200 steps of 8 rows: python -m benchmarks.early_exit"


def behind(curves: Mapping[Any, Sequence[Sequence[float]]], step: int, steps: int) -> dict[Any, Any]:
    """Return the configurations to stop after this step: {configuration: leader}.

    curves    each configuration's training losses in nats, (seeds, at least `step`); all have the same seeds

    From halfway on, compare the means of the last 25 losses every 10 steps. Let the start be the mean of the first ten
    losses. Once the lowest mean is `MIN_PROGRESS` below the start, a configuration stops in two cases: its mean is
    above start - `FLAT`, or exceeds the lowest mean by more than `MIN_GAP` and `RELATIVE_GAP` * (start - lowest mean).
    """
    if step % CHECK_EVERY or not steps / 2 <= step < steps - 1 or not curves:
        return {}
    start = fmean(loss for seeds in curves.values() for losses in seeds for loss in losses[:10])
    means = {name: fmean(x for losses in seeds for x in losses[:step][-WINDOW:]) for name, seeds in curves.items()}
    leader = min(means, key=lambda name: means[name])
    progress = start - means[leader]
    if progress < MIN_PROGRESS:
        return {}
    limit = min(means[leader] + max(MIN_GAP, RELATIVE_GAP * progress), start - FLAT)
    return {name: leader for name, loss in means.items() if loss > limit}


class Race:
    """Decide which runs of a sweep with `choose` train next, and which stop. Raises: BadValue for incomparable runs."""

    def __init__(self, recipes: Sequence[Recipe]) -> None:
        self.steps, self.recipes = recipes[0].steps, {recipe: replace(recipe, seed=0) for recipe in recipes}
        self.seeds = list(dict.fromkeys(recipe.seed for recipe in recipes))
        self.configurations = list(dict.fromkeys(self.recipes.values()))
        shared = [{k: v for k, v in recipe.settings().items() if k not in MAY_DIFFER} for recipe in self.configurations]
        if differ := {name for own in shared for name, _ in own.items() ^ shared[0].items()}:
            raise BadValue(f"choose=True needs the same {' and '.join(sorted(differ))} in all runs: split the sweep")
        if len(recipes) < len(self.seeds) * len(self.configurations):
            raise BadValue("choose=True needs the same seeds for every configuration: omit --share")
        if not recipes[0].validations:
            raise BadValue("choose=True needs validation: set validations to 1 or more, not 0")
        self.losses: dict[Recipe, list[float]] = {}
        self.out: dict[Recipe, str] = {}  # {stopped configuration: hash of one of the leading configuration's runs}
        self.failed: set[Recipe] = set()
        self.racing: Sequence[int] = ()  # the seeds of this stage
        self.pauses = False  # whether packs pause halfway, so that the remaining runs can form new packs

    def record(self, run: Run) -> None:
        """Record a run that has ended."""
        configuration, self.losses[run.recipe] = self.recipes[run.recipe], run.history["loss"]
        if run.status == BEHIND:
            self.out[configuration] = run.environment[BEHIND]
        elif run.status == "failed":
            self.failed.add(configuration)

    def stages(self, stored: Iterable[Run] = ()) -> Iterator[list[Recipe]]:
        """Yield the runs of each stage: one seed of every configuration, then the other seeds of those still racing."""
        for run in stored:
            self.record(run)
        for seeds in self.seeds[:1], self.seeds[1:]:
            self.racing, over = seeds, {*self.out, *self.failed}
            yield [recipe for recipe, key in self.recipes.items() if recipe.seed in seeds and key not in over]

    def judge(self, members: Sequence[Member], step: int) -> None:
        """End runs whose configuration is behind the overall leader. If `pauses` is set, pause the others halfway."""
        if step % CHECK_EVERY or step < self.steps / 2:
            return
        self.losses |= {member.recipe: [*member.history["loss"]] for member in members}
        training = {self.recipes[member.recipe] for member in members}  # a run that has ended cannot fall behind
        curves = {r: [self.losses.get(replace(r, seed=seed), []) for seed in self.racing] for r in self.configurations}
        ends = {recipe: min(map(len, losses)) for recipe, losses in curves.items()}
        # One that stopped at this step or later still counts: a resumed or regrouped pack judges earlier steps again.
        curves = {r: c for r, c in curves.items() if step <= ends[r] and (r not in self.out or ends[r] < self.steps)}
        for recipe, leader in behind(curves, step, self.steps).items():
            if recipe in training:
                self.out[recipe] = replace(leader, seed=self.racing[0]).hash
        for member in members:
            if self.recipes[member.recipe] in self.out:
                member.end(BEHIND)
            elif self.pauses and step - CHECK_EVERY < self.steps / 2:
                member.end("stopped")

    def finalists(self, store: Store, runs: Iterable[Run]) -> list[list[Run]]:
        """Return each finalist's runs by seed: first the configuration with the best validation mean, then its rivals.

        A rival is at most one standard error (of the difference on the stored validation rows) behind the best one.
        A configuration also counts as a rival if its stored rows, or those of the best one, are missing.
        """

        def quality(group: Sequence[Run]) -> tuple[float, float]:  # the loss breaks ties
            last = [run.history["validation"][-1] for run in group]
            return fmean(map(goodness, last)), -fmean(metrics["loss"] for metrics in last)

        def near(rows: Sequence[Any], best: Sequence[Any]) -> bool:
            if any(row is None for row in (*rows, *best)):
                return True
            pair = Pair(np.array(rows, dtype=float), np.array(best, dtype=float))
            return -pair.difference <= pair.error

        ended = self._by_configuration(run for run in runs if run.status in (*FINISHED, UNSCORED))
        placed = sorted((group for group in ended.values() if len(group) == len(self.seeds)), key=quality, reverse=True)
        rows = [[store.rows(run.recipe, VALIDATED) for run in group] for group in placed]
        return [group for group, own in zip(placed, rows, strict=True) if group is placed[0] or near(own, rows[0])]

    def choice(self, store: Store, runs: Collection[Run]) -> dict[str, Any]:
        """Return what `lora-lab sweep --choose` adds to its JSON.

        `behind` in `stopped` is a leading run's hash; `saved` is what this saves over training and scoring all runs.
        """
        chosen, *rivals = [_summary(group) for group in self.finalists(store, runs)] or [{}]
        stopped = []
        for recipe, cut in self._by_configuration(run for run in runs if run.status == BEHIND).items():
            step, seeds = max(len(run.history["loss"]) for run in cut), [run.recipe.seed for run in cut]
            stopped.append({"recipe": _settings(recipe), "step": step, "seeds": seeds, "behind": self.out[recipe]})
        total, trained = len(self.recipes), sum(len(run.history["loss"]) for run in runs)
        skipped = sum(self.steps - len(run.history["loss"]) for run in runs if run.status == BEHIND)
        steps, tests = skipped + self.steps * (total - len(runs)), total - sum(bool(run.metrics) for run in runs)
        seconds = steps * sum(run.seconds for run in runs) / max(trained, 1)
        saved = {"steps": steps, "of_steps": total * self.steps, "tests": tests, "of_tests": total, "seconds": seconds}
        settings = chosen["recipe"] if chosen and len(self.seeds) > 1 else {}
        measured = MEASURED.items() <= settings.items() and not settings.get("examples")
        bound = {"points": BOUND if measured else None, "level": 0.95, "from": EVIDENCE}
        return {"chosen": chosen or None, "rivals": rivals, "stopped": stopped, "saved": saved, "regret_bound": bound}

    def _by_configuration(self, runs: Iterable[Run]) -> dict[Recipe, list[Run]]:
        """Group runs by configuration, in the order of the grid, with the seeds in ascending order."""
        groups: dict[Recipe, list[Run]] = {configuration: [] for configuration in self.configurations}
        for run in sorted(runs, key=lambda run: run.recipe.seed):
            groups[self.recipes[run.recipe]].append(run)
        return {configuration: group for configuration, group in groups.items() if group}


def in_words(outcome: Mapping[str, Any]) -> str:
    """Describe what `Race.choice` returns."""
    lines = []
    for role, row in [("chosen", outcome["chosen"]), *(("rival ", rival) for rival in outcome["rivals"])]:
        names = [name for name in ("validation", "test") if name in (row or ())]
        means = ", ".join(f"{metric(row['metric']).text(row[name])} on {name}" for name in names)
        lines.append(f"{role}  {_text(row)}: {row['metric']} {means}" if row else f"{role}  none")
    lines += [f"stopped at step {row['step']}: {_text(row)}" for row in outcome["stopped"]]
    saved = "{steps:,} of {of_steps:,} steps, {tests} of {of_tests} test scores; about {seconds:.0f} s"
    points = outcome["regret_bound"]["points"]
    regret = "not known here" if points is None else f"at most {points} points"
    return "\n".join([*lines, f"saved   {saved.format(**outcome['saved'])}", f"regret  {regret}; tested on {EVIDENCE}"])


def _summary(runs: Sequence[Run]) -> dict[str, Any]:
    last = [run.history["validation"][-1] for run in runs]
    name = main_metric(last[0])
    means = {"validation": fmean(metrics[name] for metrics in last)}
    if all(run.metrics for run in runs):
        means["test"] = fmean(run.metrics[name] for run in runs)
    ids = {"seeds": [run.recipe.seed for run in runs], "runs": [run.recipe.hash for run in runs]}
    return {"recipe": _settings(runs[0].recipe), "metric": name, **means, **ids}


def _settings(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.settings().items() if name != "seed"}


def _text(row: Mapping[str, Any]) -> str:
    recipe = recipe_from(row["recipe"])
    return f"{describe(recipe.method)}, lr {recipe.lr:g}"

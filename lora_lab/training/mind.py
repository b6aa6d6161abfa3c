"""What an adapter changed the model's mind about: the same head, with the adapter and without it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from lora_lab.methods.merge import disabled
from lora_lab.training.evaluate import Score
from lora_lab.training.train import Bench


@dataclass(frozen=True)
class Change:
    """A text of which the model says something else with the adapter than without it, the head being the same."""

    text: str
    truth: str
    without: str
    with_adapter: str


@dataclass(frozen=True)
class Mind:
    """How the adapter changed the model's mind on the validation split."""

    without: dict[str, float]
    with_adapter: dict[str, float]
    rows: int
    changed: int
    for_the_better: int
    examples: tuple[Change, ...]


def changed_mind(bench: Bench, examples: int = 6) -> Mind | None:
    """Score the validation split with the adapter and without it.

    None for a task without classes, and where the base itself trained: nothing can be off.
    """
    task = bench.task
    if len(task.labels) < 2 or bench.recipe.method.trains_base:
        return None
    with disabled(bench.model, keep_head=True):
        (without,) = bench.score("validation")
    (with_adapter,) = bench.score("validation")
    before, after, truth = without.predictions, with_adapter.predictions, np.array(task.validation.labels)
    changed = np.flatnonzero(before != after)
    kinds: dict[
        tuple[bool, int], list[int]
    ] = {}  # for the better or not, and to which class: some of each, surest first
    for i in sorted(changed.tolist(), key=lambda i: -_margin(with_adapter, i)):
        kinds.setdefault((bool(after[i] == truth[i]), int(after[i])), []).append(i)
    turns = zip_longest(*(kinds[kind] for kind in sorted(kinds, reverse=True)))
    surest = [i for turn in turns for i in turn if i is not None][:examples]
    name = task.labels.__getitem__
    shown = [Change(task.validation.texts[i], name(truth[i]), name(before[i]), name(after[i])) for i in surest]
    better = int((after[changed] == truth[changed]).sum())
    return Mind(without.metrics, with_adapter.metrics, len(truth), len(changed), better, tuple(shown))


def _margin(score: Score, row: int) -> float:
    """How far the chosen class lies above the next, in logits."""
    second, first = np.sort(score.by_row[row])[-2:]
    return float(first - second)

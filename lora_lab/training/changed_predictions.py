"""Find the predictions that an adapter changes, using the same head with and without it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from lora_lab.methods.merge import disabled
from lora_lab.training.train import Trainer


@dataclass(frozen=True)
class Change:
    """A text whose predicted class the adapter changed."""

    text: str
    truth: str
    without: str
    with_adapter: str


@dataclass(frozen=True)
class ChangedPredictions:
    """How the adapter changed the predictions on the validation split."""

    without: dict[str, float]
    with_adapter: dict[str, float]
    rows: int
    changed: int
    for_the_better: int
    examples: tuple[Change, ...]


def changed_predictions(trainer: Trainer, examples: int = 6) -> ChangedPredictions | None:
    """Score the validation split with the adapter and without it.

    The examples alternate between kinds of change (better or worse, and the new class), most confident first. Return
    None for a task without classes, and if the base itself was trained, since then there is no adapter to disable.
    """
    task = trainer.task
    if len(task.labels) < 2 or trainer.recipe.method.trains_base:
        return None
    with disabled(trainer.model, keep_head=True):
        (without,) = trainer.score("validation")
    (with_adapter,) = trainer.score("validation")
    before, after, truth = without.predictions, with_adapter.predictions, np.array(task.validation.labels)
    changed = np.flatnonzero(before != after)
    sorted_logits = np.sort(with_adapter.by_row, axis=1)
    margins = sorted_logits[:, -1] - sorted_logits[:, -2]
    kinds: dict[tuple[bool, int], list[int]] = {}
    for i in sorted(changed.tolist(), key=lambda i: -margins[i]):
        kinds.setdefault((bool(after[i] == truth[i]), int(after[i])), []).append(i)
    rounds = zip_longest(*(kinds[kind] for kind in sorted(kinds, reverse=True)))
    chosen = [i for places in rounds for i in places if i is not None][:examples]
    texts, labels = task.validation.texts, task.labels
    shown = [Change(texts[i], labels[truth[i]], labels[before[i]], labels[after[i]]) for i in chosen]
    better = int((after[changed] == truth[changed]).sum())
    return ChangedPredictions(without.metrics, with_adapter.metrics, len(truth), len(changed), better, tuple(shown))

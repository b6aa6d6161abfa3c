"""Find the predictions that an adapter changes, using the same head with and without it."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np

from lora_lab.methods.merge import disabled
from lora_lab.training.train import Trainer


def changed_predictions(trainer: Trainer, examples: int = 6) -> dict[str, Any] | None:
    """Score the validation split with the adapter and without it.

    Return {changed, of, better}, numbers of rows; {without, with}, accuracies in percent; and examples, a list of
    {text, truth, without, with_adapter}, the last three as class names. The examples alternate between kinds of change
    (better or worse, and the new class), most confident first. Return None for a task without classes, and if the base
    itself was trained, since then there is no adapter to disable.
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
    columns = ("truth", truth), ("without", before), ("with_adapter", after)
    return {
        "changed": len(changed),
        "of": len(truth),
        "better": int((after[changed] == truth[changed]).sum()),
        "without": 100 * without.metrics["accuracy"],
        "with": 100 * with_adapter.metrics["accuracy"],
        "examples": [
            {"text": task.validation.texts[i], **{name: task.labels[classes[i]] for name, classes in columns}}
            for i in chosen
        ],
    }

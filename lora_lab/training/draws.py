"""A part of a task's training texts, drawn so that small draws are balanced and lie inside the larger ones."""

from __future__ import annotations

import random

from lora_lab.errors import BadValue
from lora_lab.training.tasks import Split, Task


def drawn(task: Task, examples: int, subset: int = 0) -> list[int]:
    """Places in `task.train` of so many texts, in order; all of them for 0 examples.

    Each label's texts are shuffled by `subset` and spread evenly over 0 to 1; the first so many are taken. So every
    draw is balanced as the data are, as near as whole texts can be, and a larger one holds the smaller (Webster's
    method of dividing seats). Raises: BadValue for more texts than there are, too few to hold each label, or a label
    that is held out and that no training text has.
    """
    _refuse_untaught(task)
    labels = task.train.labels if len(task.labels) > 1 else (0,) * len(task.train)
    if examples > len(labels):
        raise BadValue(f"task {task.name} has {len(labels):,} training texts, not {examples:,}; examples=0 takes all")
    rng, at = random.Random(subset), list[tuple[float, int]]()
    for label in sorted(set(labels)):
        places = [place for place, own in enumerate(labels) if own == label]
        rng.shuffle(places)
        at += [((n + 0.5) / len(places), place) for n, place in enumerate(places)]
    chosen = sorted(place for _, place in sorted(at)[: examples or None])
    missing = set(labels) - {labels[place] for place in chosen}
    if missing and task.labels:
        raise BadValue(f"{examples} examples of {task.name} hold no '{task.labels[min(missing)]}'; take more of them")
    return chosen


def _refuse_untaught(task: Task) -> None:
    if len(task.labels) < 2:
        return
    for name in ("validation", "test"):
        split: Split = getattr(task, name)
        if untaught := sorted(set(split.labels) - set(task.train.labels)):
            raise BadValue(
                f"{task.name}: no training text is labelled '{task.labels[untaught[0]]}', which a {name} text is: "
                "add more texts of that label, set the column 'split', or take the label out"
            )

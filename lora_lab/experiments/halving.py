"""Successive halving within a pack: after each validation but the last, the worse half leaves and is scored as it is.

Source: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification". Only runs of one pack are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from lora_lab.training.lane import Lane
from lora_lab.training.metrics import goodness

STATUS = "halved"


def keep_better_half(lanes: Sequence[Lane], step: int) -> None:
    """End the worse half of the lanes as "halved"; of two lanes one goes on, and a single one always does."""
    if not lanes or step >= lanes[0].recipe.steps or len(lanes) < 2:
        return
    ranked = sorted(lanes, key=_rank)
    for lane in ranked[(len(lanes) + 1) // 2 :]:
        lane.end(STATUS)


def _rank(lane: Lane) -> float:
    """Smaller is better: by the task's own metric on the last validation."""
    return -goodness(next(p.validation for p in reversed(lane.history.progress) if p.validation))

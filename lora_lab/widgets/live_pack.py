"""A pack whose curves begin at once: what its untrained models answer is scored when a run has ended."""

from __future__ import annotations

from typing import Any

from lora_lab.methods.merging import disabled
from lora_lab.training.evaluate import Score
from lora_lab.training.lane import Lane
from lora_lab.training.pack import Pack
from lora_lab.training.runs import Run


class LivePack(Pack):
    """As `Pack`, in another order: with the adapter and the trained head switched off a model is as it began."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.untrained: dict[int, dict[str, float]] = {}  # by seed, as lanes of one seed have one head

    def before(self) -> list[dict[str, float]]:
        """Nothing yet."""
        return [{}] * len(self.lanes)

    def record(self, lane: Lane, score: Score | None) -> Run:
        """What came of a lane, and before it what the untrained model answered."""
        seed = lane.recipe.seed
        if lane.recipe.validations and not lane.history.before:
            if seed not in self.untrained:
                with disabled(lane.model):
                    self.untrained[seed] = self._alone(lane, "validation").metrics
            lane.history.before = self.untrained[seed]
        return super().record(lane, score)

"""A pack for watching: training starts at once, and the untrained model is scored after it."""

from __future__ import annotations

from typing import Any

from lora_lab.methods.merge import disabled
from lora_lab.training.evaluate import Score
from lora_lab.training.loop import Member
from lora_lab.training.pack import Pack
from lora_lab.training.runs import Run


class LivePack(Pack):
    """A `Pack` that scores step 0 last, with adapter and trained head disabled, which restores the untrained model."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.untrained: dict[int, dict[str, float]] = {}  # by seed, as lanes of one seed have one head

    def before(self) -> list[dict[str, float]]:
        """No scores before the first step; `record` adds them."""
        return [{}] * len(self.members)

    def record(self, lane: Member, score: Score | None) -> Run:
        """The run of a lane, with its scores at step 0."""
        seed = lane.recipe.seed
        if lane.recipe.validations and not lane.history.before:
            if seed not in self.untrained:
                with disabled(lane.model):
                    self.untrained[seed] = self._alone(lane, "validation").metrics
            lane.history.before = self.untrained[seed]
        return super().record(lane, score)

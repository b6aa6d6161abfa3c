"""A pack for live panels: training starts at once, and the untrained model is scored afterwards."""

from __future__ import annotations

from typing import Any

from lora_lab.methods.merge import disabled
from lora_lab.training.evaluate import Score
from lora_lab.training.loop import Member
from lora_lab.training.pack import Pack
from lora_lab.training.runs import Run


class LivePack(Pack):
    """A `Pack` that scores step 0 last, by disabling the adapter and the trained head."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.untrained: dict[int, dict[str, float]] = {}  # by seed: members with the same seed have the same head

    def before(self) -> None:
        """Skip scoring before the first step; `record` adds those scores."""

    def record(self, member: Member, score: Score | None) -> Run:
        """Return the run of a member, with its scores at step 0."""
        seed, validations = member.recipe.seed, member.history["validation"]
        if member.recipe.validations and not any(record["step"] == 0 for record in validations):
            if seed not in self.untrained:
                with disabled(member.model):
                    self.untrained[seed] = self._alone(member, "validation").metrics
            validations.insert(0, {"step": 0, **self.untrained[seed]})
        return super().record(member, score)

"""Full fine-tuning: every weight trains; and the least that fine-tuning can be, the task's head alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.methods.base import Method, Report, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class FullFineTuning(Method):
    """Everything trains."""

    name: ClassVar[str] = "full"
    within: ClassVar[bool] = True
    retired: ClassVar[Mapping[str, Any]] = {"top": None}

    def attach(self, model: nn.Module) -> Report:
        """Let every weight train; nothing is added."""
        from lora_lab.methods import attach  # imports torch

        return attach.attach_whole(model, self)


@register
@dataclass(frozen=True)
class HeadOnly(Method):
    """The model stays frozen and only the task's head trains: the least that fine-tuning can be."""

    name: ClassVar[str] = "head"
    packs: ClassVar[bool] = True

    def attach(self, model: nn.Module) -> Report:
        """Freeze everything and give the classification head a copy that trains.

        Raises: BadValue for a model without such a head.
        """
        from lora_lab.methods import attach  # imports torch

        return attach.attach_beside(model, self, ())

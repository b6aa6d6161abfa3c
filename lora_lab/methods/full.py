"""Full fine-tuning: every weight trains, or those of the topmost layers alone ("FT-Top2")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lora_lab.accounting.architectures import Architecture, Module
from lora_lab.accounting.parameters import Row, row_of
from lora_lab.accounting.plan import Plan
from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report, register
from lora_lab.methods.options import layers_within, whole

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class FullFineTuning(Method):
    """Everything trains; with `top` only the last so many layers, without embeddings and final norm.

    Source: Hu et al. 2021, table 3 (FT and FT-Top2). Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "full"
    within: ClassVar[bool] = True

    top: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top is not None:
            whole("top", self.top)

    def trained(self, architecture: Architecture) -> tuple[Row, ...]:
        """Every kind of module; a head that a task adds trains too, but counts apart."""
        if self.top is not None:
            layers_within("top", self.top, architecture)
        rows = (row_of(m, self._numbers(m, architecture)) for m in architecture.modules if not m.in_task_head)
        return tuple(row for row in rows if row.trained)

    def plan(self, architecture: Architecture) -> Plan:
        """Every weight. Raises: as `count`."""
        if self.top is not None:
            return Plan(self.count(architecture), unknown="the memory of full with top is not modelled; leave top out")
        return Plan(self.count(architecture), everything=True)

    def attach(self, model: nn.Module) -> Report:
        """Let every weight train; nothing is added."""
        from lora_lab.methods import attach  # imports torch

        if self.top is not None:
            raise BadValue("full fine-tuning of the topmost layers alone can be counted, not trained yet")
        return attach.attach_whole(model, self)

    def _numbers(self, module: Module, architecture: Architecture) -> int:
        if self.top is None:
            return module.parameters * module.count
        first = architecture.layers - self.top
        return module.parameters * module.each * sum(n >= first for n in module.numbers)


@register
@dataclass(frozen=True)
class HeadOnly(Method):
    """The model stays frozen and only the task's head trains: the least that fine-tuning can be."""

    name: ClassVar[str] = "head"
    packs: ClassVar[bool] = True

    def trained(self, architecture: Architecture) -> tuple[Row, ...]:
        """Nothing but the head, which counts apart. Raises: BadValue for a model that no head is put on."""
        if architecture.task != "encoder" and not architecture.head_parameters:
            raise BadValue(f"{architecture.name} has no head of a task that could train alone; use lora, or num_labels")
        return ()

    def plan(self, architecture: Architecture) -> Plan:
        """The head alone. Raises: as `trained`."""
        return Plan(self.count(architecture))

    def attach(self, model: nn.Module) -> Report:
        """Freeze everything and give the classification head a copy that trains.

        Raises: BadValue for a model without such a head.
        """
        from lora_lab.methods import attach  # imports torch

        return attach.attach_beside(model, self, ())

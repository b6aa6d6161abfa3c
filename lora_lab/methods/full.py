"""Full fine-tuning, which trains every weight, and its opposite, which trains only the task head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import register
from lora_lab.methods.layer_method import InsertingMethod, LayerMethod, attach, nn


@register
@dataclass(frozen=True)
class FullFineTuning(InsertingMethod):
    """Train every weight and add none. Raises: BadValue for a quantized model."""

    name: ClassVar[str] = "full"
    trains_base: ClassVar[bool] = True
    retired: ClassVar[Mapping[str, Any]] = {"top": None}

    def insert(self, model: nn.Module, to_fill: bool) -> None:
        if attach.quantized_layers(model):
            raise BadValue("quantized weights cannot be trained: load the base in fp32 or bf16, or use lora")


@register
@dataclass(frozen=True)
class HeadOnly(LayerMethod):
    """Train a copy of the task head and freeze everything else."""

    name: ClassVar[str] = "head"
    can_pack: ClassVar[bool] = True

    def places(self, model: nn.Module) -> tuple[()]:
        return ()

"""Prefix tuning: every layer gets vectors of its own to attend to, and only those train.

    per layer and token a key and a value: layers x tokens x 2 x kv_heads x head_dim numbers

It starts as small random numbers, so that the model's answers move a little at once: an empty prefix would still draw
attention to itself. Source: Li & Liang 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.methods.base import Method, Report, register
from lora_lab.methods.options import whole

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class PrefixTuning(Method):
    """`tokens` learned positions in front of every layer. Raises: BadValue for an impossible value."""

    name: ClassVar[str] = "prefix"
    packs: ClassVar[bool] = True
    retired: ClassVar[Mapping[str, Any]] = {"form": "keys-values"}

    tokens: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, hand every layer a prefix, give a classification head a copy that trains.

        Raises: BadValue for a model whose layers take no keys and values from outside (DeBERTa), and when the model
        carries an adapter already.
        """
        from lora_lab.methods import soft_prefix  # imports torch

        return soft_prefix.attach_prefix(model, self, tokens=self.tokens)

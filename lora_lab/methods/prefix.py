"""Prefix tuning: every layer gets vectors of its own to attend to, and only those train.

    keys-values   per layer and token a key and a value: layers x tokens x 2 x kv_heads x head_dim  (Li & Liang 2021)
    activations   per layer and token one activation:    layers x tokens x hidden                   (PreLayer)

The second is how Hu et al. count their PreLayer in section 5.1: L d_model (l_p + l_i). Their table's figures are some
percent above it, and no choice of tokens reproduces them. Only the first can be trained here. It starts as small random
numbers, so that the model's answers move a little at once: an empty prefix would still draw attention to itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from lora_lab.accounting.architectures import Architecture
from lora_lab.accounting.parameters import Row
from lora_lab.accounting.plan import Plan
from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report, register
from lora_lab.methods.options import layers_within, one_of, whole

if TYPE_CHECKING:
    from torch import nn

FORMS = ("keys-values", "activations")


@register
@dataclass(frozen=True)
class PrefixTuning(Method):
    """`tokens` learned positions in front of every layer. Raises: BadValue for an impossible value."""

    name: ClassVar[str] = "prefix"
    packs: ClassVar[bool] = True

    tokens: int = 20
    form: str = "keys-values"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)
        one_of("form", self.form, FORMS)

    def trained(self, architecture: Architecture) -> tuple[Row, ...]:
        """One table a layer.

        Raises: BadValue for a model with two stacks of layers, or whose cache holds no keys and values.
        """
        layers_within("prefix", 1, architecture)
        width = self._width(architecture)
        numbers = architecture.layers * self.tokens * width
        return (Row("prefix", "prefix", self.tokens, width, architecture.layers, 0, numbers, matrix=False),)

    def plan(self, architecture: Architecture) -> Plan:
        """Tokens in the cache before each row's own; the memory of a step is not modelled."""
        return replace(super().plan(architecture), prefix=self.tokens)

    def _width(self, architecture: Architecture) -> int:
        if self.form == "activations":
            return architecture.hidden
        if any(m.name.endswith(".kv_b_proj") for m in architecture.modules):
            raise BadValue(f"{architecture.name} caches a latent, not keys and values; use prompt tuning there")
        return 2 * architecture.kv_heads * architecture.head_dim

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, hand every layer a prefix, give a classification head a copy that trains.

        Raises: BadValue for a model whose layers take no keys and values from outside (DeBERTa), for the form
        activations, and when the model carries an adapter already.
        """
        from lora_lab.methods import soft_prefix  # imports torch

        if self.form != "keys-values":
            raise BadValue("a prefix of activations can be counted, not trained: leave form at keys-values")
        return soft_prefix.attach_prefix(model, self, tokens=self.tokens)

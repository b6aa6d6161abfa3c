"""P-tuning: a soft prompt that comes out of a small network, and both train.

    E (tokens, d) -> linear (d, h) -> ReLU -> linear (h, h) -> ReLU -> linear (h, d) -> the prompt (tokens, d)

The network makes the prompt's vectors depend on each other, so that one step moves them together. After training only
its outcome is needed: that is all an adapter file holds, as PEFT writes it. Source: Liu et al. 2021 (GPT Understands,
Too); theirs has an LSTM before the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lora_lab.accounting.architectures import Architecture
from lora_lab.accounting.parameters import FP32, Row
from lora_lab.accounting.plan import Plan
from lora_lab.methods.base import Method, Report, register
from lora_lab.methods.options import whole

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class PTuning(Method):
    """`tokens` vectors through a network `hidden` wide, as wide as the model when None.

    Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "ptuning"
    packs: ClassVar[bool] = True

    tokens: int = 20
    hidden: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("tokens", self.tokens)
        if self.hidden is not None:
            whole("hidden", self.hidden)

    def trained(self, architecture: Architecture) -> tuple[Row, ...]:
        """The network's input, tokens x d, and its three layers with their biases."""
        d = architecture.hidden
        h = self.hidden or d
        sizes = {"encoder.0": (d, h), "encoder.2": (h, h), "encoder.4": (h, d)}
        layers = (Row(name, "prompt", i, o, 1, 0, i * o + o, matrix=False) for name, (i, o) in sizes.items())
        return (Row("prompt_embeddings", "prompt", self.tokens, d, 1, 0, self.tokens * d, matrix=False), *layers)

    def plan(self, architecture: Architecture) -> Plan:
        """Tokens before each row, and the network that makes them, tensor by tensor."""
        d, prompt = architecture.hidden, self.tokens
        h = self.hidden or d
        return Plan(self.count(architecture), prompt=prompt, tensors=(prompt * d, d * h, h, h * h, h, h * d, d))

    def file_bytes(self, architecture: Architecture) -> int:
        """Bytes of the finished vectors and the head in fp32: the network stays behind."""
        return FP32 * (self.tokens * architecture.hidden + architecture.head_parameters)

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, put the network's outcome before its embeddings, give a head a copy that trains.

        Raises: BadValue when the model carries an adapter already.
        """
        from lora_lab.methods import soft_prompt  # imports torch

        return soft_prompt.attach_encoded(model, self, tokens=self.tokens, width=self.hidden)

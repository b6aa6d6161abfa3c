"""P-tuning: a soft prompt that comes out of a small network, and both train.

    E (tokens, d) -> linear (d, h) -> ReLU -> linear (h, h) -> ReLU -> linear (h, d) -> the prompt (tokens, d)

The network makes the prompt's vectors depend on each other, so that one step moves them together. After training only
its outcome is needed: that is all an adapter file holds, as PEFT writes it. Source: Liu et al. 2021 (GPT Understands,
Too); theirs has an LSTM before the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, put the network's outcome before its embeddings, give a head a copy that trains.

        Raises: BadValue when the model carries an adapter already.
        """
        from lora_lab.methods import soft_prompt  # imports torch

        return soft_prompt.attach_encoded(model, self, tokens=self.tokens, width=self.hidden)

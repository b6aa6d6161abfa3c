"""BitFit: every bias of the model trains and nothing else does.

Source: Ben-Zaken et al. 2022. GPT-3's row in Hu et al. (14.2M) is 12 d a layer; the biases of a GPT-2 block are 11 d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lora_lab.methods.base import Method, Report, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class BitFit(Method):
    """All biases, those of the norms among them."""

    name: ClassVar[str] = "bitfit"
    packs: ClassVar[bool] = True

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, put a bias of its own beside each frozen one, give a classification head a trained copy.

        Raises: BadValue when there is nothing to train, or the model carries an adapter already.
        """
        from lora_lab.methods import trained_bias  # imports torch

        return trained_bias.attach_biases(model, self)

"""The honest floor: logistic regression on what the frozen model says of a text, and nothing of the model moves.

    z = the mean over a text's tokens of the last hidden state     (d,)
    p(class | text) = softmax(W z + b)                             W (classes, d), b (classes), zero at first

    minimize  sum over texts of -log p(label | text)  +  l2 / 2 |W|^2       on z with mean 0 and deviation 1

That has one minimum, which scikit-learn finds (`training/probing.py`): no rate, no steps, no seed. What a method gains
over the probe is what changing the model is worth. Alain & Bengio 2016, arXiv:1610.01644.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report, is_number, register

if TYPE_CHECKING:
    from torch import nn


@register
@dataclass(frozen=True)
class Probe(Method):
    """Logistic regression with the penalty l2 / 2 |W|^2 against the sum of losses: the one thing to tune.

    scikit-learn's C is 1 / l2; with two classes, for which it keeps one row of W instead of two, 2 / l2.
    A recipe's rate, steps, batch, clip and seed change nothing. Raises: BadValue for an l2 that is not above 0.
    """

    name: ClassVar[str] = "probe"

    l2: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.l2) and 0 < self.l2 < math.inf):
            raise BadValue(f"l2 must be a number above 0, not {self.l2!r}: without a penalty W can grow without bound")

    def attach(self, model: nn.Module) -> Report:
        from lora_lab.methods.pooled_head import attach_probe

        return attach_probe(model, self)

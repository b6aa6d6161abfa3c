"""A linear probe as the baseline: logistic regression on the features of a frozen model.

    z = mean of the last hidden state over a text's tokens         (d,)
    p(class | text) = softmax(W z + b)                             W (classes, d), b (classes), initially zero

    minimize  sum over texts of -log p(label | text)  +  l2 / 2 |W|^2       on z standardized to mean 0 and deviation 1

It has a single minimum, which scikit-learn finds (`training/probing.py`) without a learning rate, steps or a seed. A
method's gain over the probe is the value of changing the model. Alain & Bengio 2016, arXiv:1610.01644.
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
    """Logistic regression with the penalty l2 / 2 |W|^2 added to the sum of losses; l2 is the only hyperparameter.

    scikit-learn's C is 1 / l2, or 2 / l2 for two classes, where it has one row of W instead of two.
    A recipe's rate, steps, batch, clip and seed have no effect. Raises: BadValue for an l2 that is not above 0.
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

"""Train every weight, or only the task head, by steps (`head`) or by solving a logistic regression (`probe`).

    probe:  p(class | text) = softmax(W z + b)    z (d,) is the mean of the last hidden state over a text's tokens;
                                                  W (classes, d) and b (classes) start at zero

The probe is a baseline, logistic regression on the features of a frozen model (Alain & Bengio 2016, arXiv:1610.01644):

    minimize  sum over texts of -log p(label | text)  +  l2 / 2 |W|^2       on z standardized to mean 0 and deviation 1

This loss has a single minimum, which scikit-learn finds (`training/loop.py`) without a learning rate, steps or a
seed. A method's gain over the probe shows what changing the model is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import nn
from lora_lab.methods.base import Method, attach, is_number, register

NOT_OF_A_TEXT = ("TokenClassification", "MultipleChoice")  # in class names of models that do not classify whole texts


@register
@dataclass(frozen=True)
class FullFineTuning(Method):
    """Train every weight and add none. Raises: BadValue for a quantized model."""

    name, trains_base = "full", True
    retired: ClassVar[Mapping[str, Any]] = {"top": None}

    def insert(self, model: nn.Module, to_fill: bool) -> None:
        if attach.quantized_layers(model):
            raise BadValue("quantized weights cannot be trained: load the base in fp32 or bf16, or use lora")


@register
@dataclass(frozen=True)
class HeadOnly(Method):
    """Train a copy of the task head and freeze everything else."""

    name, can_pack = "head", True


@register
@dataclass(frozen=True)
class Probe(Method):
    """Logistic regression with the penalty l2 / 2 |W|^2 added to the sum of losses. `l2` is the only hyperparameter.

    scikit-learn's C is 1 / l2, or 2 / l2 for two classes, for which scikit-learn has one row of W instead of two.
    A recipe's `lr`, `steps`, `batch`, `clip` and `seed` have no effect. Raises: BadValue unless `l2` is above 0.
    """

    name = "probe"

    l2: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.l2) and 0 < self.l2 < math.inf):
            raise BadValue(f"l2 must be a positive number, not {self.l2!r}: with no penalty, W can grow without bound")

    def insert(self, model: nn.Module, to_fill: bool) -> None:
        kind, config = type(model).__name__, getattr(model, "config", None)
        if any(word in kind for word in NOT_OF_A_TEXT):
            raise BadValue(
                f"the probe predicts one class per text, which a {kind} cannot: use load_model(name, num_labels=2), "
                "or train another method, such as BitFit()"
            )
        heads = [(name, head) for name, head in attach.heads_of(model) if name != "qa_outputs"]  # it predicts spans
        if not heads or config is None:
            raise BadValue('the probe needs a classifier: load_model("minilm", num_labels=2)')
        name, head = heads[-1]
        attach.wrap(model, name, attach.PooledHead(head, model, every_token=name == "score"))

"""Train every weight, or train only the task head, either in steps (`head`) or as a logistic regression (`probe`).

The probe is a logistic regression on the features of a frozen model (Alain & Bengio 2016, arXiv:1610.01644):

    p(class | text) = softmax(W z + b)
    minimize  sum over texts of -log p(label | text)  +  (l2 / 2) |W|^2

The features z (d,) are the mean of the last hidden state over a text's tokens, and the minimization standardizes them
to mean 0 and standard deviation 1. W (classes, d) and b (classes) start at zero. This loss has a single minimum, which
scikit-learn finds (`training/member.py`). Another method's gain over the probe is the benefit of changing the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import nn
from lora_lab.methods.base import POSITIVE, Method, attach, register
from lora_lab.methods.targets import CONSTANT

NOT_OF_A_TEXT = ("TokenClassification", "MultipleChoice")  # in class names of models that do not classify whole texts


@register
@dataclass(frozen=True)
class FullFineTuning(Method):
    """Train all weights except fixed position tables, and add no parameters. Raises: BadValue for a quantized model."""

    name, trains_base = "full", True
    retired: ClassVar[Mapping[str, Any]] = {"top": None}

    def insert(self, model: nn.Module, to_fill: bool) -> None:
        if attach.quantized_layers(model):
            raise BadValue("quantized weights cannot be trained: load the base in fp32 or bf16, or use lora")
        for module in model.modules():
            if CONSTANT in type(module).__name__:
                module.requires_grad_(False)


@register
@dataclass(frozen=True)
class HeadOnly(Method):
    """Train a copy of the task head and freeze everything else."""

    name, can_pack = "head", True


@register
@dataclass(frozen=True)
class Probe(Method):
    """Fit a logistic regression with the penalty (l2 / 2) |W|^2 added to the sum of losses.

    A recipe's `lr`, `steps`, `batch`, `clip` and `seed` have no effect. Raises: BadValue unless `l2` is above 0.
    """

    name, numbers = "probe", {"l2": POSITIVE}  # with no penalty, W can grow without bound

    l2: float = 1.0

    def insert(self, model: nn.Module, to_fill: bool) -> None:
        kind, config = type(model).__name__, getattr(model, "config", None)
        if any(word in kind for word in NOT_OF_A_TEXT):
            advice = "use load_model(name, num_labels=2), or train another method, such as BitFit()"
            raise BadValue(f"the probe predicts one class per text, which a {kind} cannot do: {advice}")
        heads = [(name, head) for name, head in attach.heads_of(model) if name != "qa_outputs"]  # it predicts spans
        if not heads or config is None:
            raise BadValue('the probe needs a classifier: load_model("minilm", num_labels=2)')
        if kind.startswith(("T5", "MT5", "UMT5")) and config.is_encoder_decoder:
            raise BadValue(f"the probe needs a model that only encodes, but {kind} also has a decoder: use lora")
        name, head = heads[-1]
        attach.wrap(model, name, attach.PooledHead(head, model, every_token=attach.scores_last_token(model)))

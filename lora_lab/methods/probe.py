"""A linear probe as the baseline: logistic regression on the features of a frozen model.

    z = mean of the last hidden state over a text's tokens         (d,)
    p(class | text) = softmax(W z + b)                             W (classes, d), b (classes), initially zero

    minimize  sum over texts of -log p(label | text)  +  l2 / 2 |W|^2       on z standardized to mean 0 and deviation 1

This loss has a single minimum, which scikit-learn finds (`training/loop.py`) without a learning rate, steps or a
seed. A method's gain over the probe shows what changing the model is worth. Alain & Bengio 2016, arXiv:1610.01644.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report, is_number, register
from lora_lab.methods.layer_method import attach, nn

NOT_OF_A_TEXT = ("TokenClassification", "MultipleChoice")  # in class names of models that do not classify whole texts


@register
@dataclass(frozen=True)
class Probe(Method):
    """Logistic regression with the penalty l2 / 2 |W|^2 added to the sum of losses; l2 is the only hyperparameter.

    scikit-learn's C is 1 / l2, or 2 / l2 for two classes, for which scikit-learn has one row of W instead of two.
    A recipe's rate, steps, batch, clip and seed have no effect. Raises: BadValue for an l2 that is not above 0.
    """

    name: ClassVar[str] = "probe"

    l2: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.l2) and 0 < self.l2 < math.inf):
            raise BadValue(f"l2 must be a positive number, not {self.l2!r}: with no penalty, W can grow without bound")

    def attach(self, model: nn.Module, *, to_fill: bool = False) -> Report:
        attach.refuse_adapted(model)
        kind, config = type(model).__name__, getattr(model, "config", None)
        if any(word in kind for word in NOT_OF_A_TEXT):
            raise BadValue(
                f"the probe predicts one class per text, which a {kind} cannot: use load_model(name, num_labels=2), "
                "or train another method, such as BitFit()"
            )
        heads = [(name, head) for name, head in attach.heads_of(model) if name != "qa_outputs"]  # it predicts spans
        if not heads or config is None:
            raise BadValue('the probe needs a classifier: load_model("minilm", num_labels=2)')
        total, base = attach.numbers_of(model), attach.fingerprint(model)
        model.requires_grad_(False)
        name, old = heads[-1]
        every_token = name == "score"  # the head of a causal model
        head = attach.PooledHead(old, config.hidden_size, config.num_labels, every_token=every_token)
        attach.put(model, name, head.train(old.training))
        head.hook = model.base_model.register_forward_hook(head.capture, with_kwargs=True)  # type: ignore[operator, union-attr, assignment]
        report = Report(self, (), ((name, sum(p.numel() for p in head.trained.parameters())),), total, base)
        model.lora_lab_report = report  # type: ignore[assignment]
        return report

"""The probe's head, which reads the mean over all tokens regardless of what the model's own head reads. See `probe.py`.

BERT's own head reads the first token; those of GPT-2 and Llama read every token. So this one hooks the base model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.methods.attach import TrainedCopy, fingerprint, heads_of, in_its_dtype, numbers_of, put, refuse_adapted
from lora_lab.methods.base import Method, Report

NOT_OF_A_TEXT = ("TokenClassification", "MultipleChoice")  # in class names of models that do not classify whole texts


class PooledHead(TrainedCopy):
    """Compute fp32 logits W z + b from the mean hidden state z (rows, d). W and b start at zero: equal logits.

    Shapes: forward (rows, ...) -> (rows, classes); if `every_token`, (rows, tokens, classes), the same for all tokens.
    """

    unmergeable = "reads the mean of all tokens, which no head in transformers does"

    def __init__(self, base_layer: nn.Module, hidden: int, classes: int, *, every_token: bool) -> None:
        trained = nn.Linear(hidden, classes, device=next(base_layer.parameters()).device, dtype=torch.float32)
        nn.init.zeros_(trained.weight)
        nn.init.zeros_(trained.bias)
        super().__init__(base_layer, trained)
        self.every_token = every_token
        self.captured: Any = None

    def capture(self, base: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Store the hidden states and mask; a forward hook of the base model."""
        if self.active:
            self.captured = (output[0], kwargs.get("attention_mask"))

    def features(self) -> Tensor:
        """Return the mean hidden state of each captured row, (rows, d) in fp32, and clear the captured states."""
        (hidden, mask), self.captured = self.captured, None
        if mask is None or mask.dim() != 2:  # other masks don't tell which tokens are padding
            return hidden.float().mean(1)  # type: ignore[no-any-return]
        weights = mask.float() / mask.float().sum(1, keepdim=True)
        return torch.bmm(weights.unsqueeze(1), hidden.float()).squeeze(1)

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        logits = in_its_dtype(self.trained, self.features())
        return logits.unsqueeze(1).expand(-1, x.shape[1], -1) if self.every_token else logits


def attach_probe(model: nn.Module, method: Method) -> Report:
    """Freeze `model` and replace its last head by a `PooledHead`."""
    refuse_adapted(model)
    kind = type(model).__name__
    if any(word in kind for word in NOT_OF_A_TEXT):
        raise BadValue(
            f"the probe gives each text one class, but a {kind} cannot: use load_model(name, num_labels=2), "
            "or train another method, such as BitFit()"
        )
    heads = [(name, head) for name, head in heads_of(model) if name != "qa_outputs"]  # which predicts answer spans
    config = getattr(model, "config", None)
    if not heads or config is None:
        raise BadValue('the probe needs a classifier: load_model("minilm", num_labels=2)')
    total, base = numbers_of(model), fingerprint(model)
    model.requires_grad_(False)
    name, old = heads[-1]
    head = PooledHead(old, config.hidden_size, config.num_labels, every_token=name == "score")  # of a causal model
    put(model, name, head.train(old.training))
    head.hook = model.base_model.register_forward_hook(head.capture, with_kwargs=True)  # type: ignore[operator, union-attr, assignment]
    report = Report(method, (), ((name, sum(p.numel() for p in head.trained.parameters())),), total, base)
    model.lora_lab_report = report  # type: ignore[assignment]
    return report


def pooled_head_of(model: nn.Module) -> PooledHead | None:
    """Return the probe's head, or None if the model has none."""
    return next((m for m in model.modules() if isinstance(m, PooledHead)), None)

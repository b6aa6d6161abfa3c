"""A head that reads the mean of all tokens, whatever the model hands to its own head. The method is in probe.py.

BERT's own head gets the first token through the pooler, RoBERTa's gets all tokens, GPT-2's and Llama's answer at every
token and the last one's answer is taken. So this one listens at the base model: its last hidden state, and the mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lora_lab.errors import BadValue
from lora_lab.methods.attach import TrainedCopy, fingerprint, heads_of, in_its_dtype, numbers_of, put, refuse_adapted
from lora_lab.methods.base import Method, Report

AT_EVERY_TOKEN = "score"  # the name of a head that transformers asks at every token
NOT_OF_A_TEXT = ("TokenClassification", "MultipleChoice")  # of the class of a model that gives no class to a whole text


class PooledHead(TrainedCopy):
    """Logits W z + b of the mean hidden state z (rows, d), in fp32; W and b start at zero: all classes alike.

    Shapes: forward (rows, ...) -> (rows, classes), or (rows, tokens, classes), all tokens alike, where `every_token`.
    """

    unmergeable = "reads the mean of all tokens, as no head of plain transformers does"

    def __init__(self, base_layer: nn.Module, hidden: int, classes: int, *, every_token: bool) -> None:
        super().__init__(base_layer, _zeros(hidden, classes, next(base_layer.parameters()).device))
        self.every_token, self.heard = every_token, _NOTHING
        self.hook: RemovableHandle  # at the base model

    def listen(self, base: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Called after each forward of the base model."""
        if self.active:
            self.heard = (output[0], kwargs.get("attention_mask"))

    def features(self) -> Tensor:
        """The mean hidden state of each of the rows just heard, which are then forgotten: (rows, d) in fp32."""
        heard, self.heard = self.heard, _NOTHING
        return masked_mean(*heard)

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        if not self.active:
            return self.base_layer(x, *args, **kwargs)  # type: ignore[no-any-return]
        logits = in_its_dtype(self.trained, self.features())
        return logits.unsqueeze(1).expand(-1, x.shape[1], -1) if self.every_token else logits


_NOTHING: tuple[Tensor, Tensor | None] = (torch.empty(0), None)


def masked_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over each row's own tokens: (rows, tokens, d) and (rows, tokens) -> (rows, d), in fp32.

    Raises: BadValue where the hidden states are not one for each token of the mask.
    """
    if mask is None or mask.dim() != 2:  # who attends to whom, which says nothing about padding
        return hidden.float().mean(1)
    if mask.shape != hidden.shape[:2]:
        raise BadValue("the probe reads every token: do not let the model answer at its first token alone")
    weights = mask.float() / mask.float().sum(1, keepdim=True)
    return torch.bmm(weights.unsqueeze(1), hidden.float()).squeeze(1)


def attach_probe(model: nn.Module, method: Method) -> Report:
    """Freeze `model` and put a `PooledHead` in the place of its last head."""
    refuse_adapted(model)
    kind = type(model).__name__
    if any(word in kind for word in NOT_OF_A_TEXT):
        raise BadValue(
            f"the probe gives each text one class, which a {kind} does not: load_model(name, num_labels=2) does; "
            "or train another method, such as BitFit()"
        )
    heads = [(name, head) for name, head in heads_of(model) if name != "qa_outputs"]  # it finds the ends of an answer
    config = getattr(model, "config", None)
    if not heads or config is None:
        raise BadValue('the probe needs a classifier: load_model("minilm", num_labels=2)')
    numbers, base = numbers_of(model), fingerprint(model)
    model.requires_grad_(False)
    name, own = heads[-1]
    head = PooledHead(own, config.hidden_size, config.num_labels, every_token=name == AT_EVERY_TOKEN)
    put(model, name, head.train(own.training))
    head.hook = model.base_model.register_forward_hook(head.listen, with_kwargs=True)  # type: ignore[operator, union-attr]
    report = Report(method, (), ((name, sum(p.numel() for p in head.trained.parameters())),), numbers, base)
    model.lora_lab_report = report  # type: ignore[assignment]
    return report


def pooled_head_of(model: nn.Module) -> PooledHead | None:
    """The probe's head of a model that carries one."""
    return next((m for m in model.modules() if isinstance(m, PooledHead)), None)


def _zeros(hidden: int, classes: int, device: torch.device) -> nn.Linear:
    made = nn.Linear(hidden, classes, device=device, dtype=torch.float32)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made

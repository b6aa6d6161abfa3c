"""A soft prompt in a model: trained vectors that stand before the embeddings of every row. The method is in prompt.py.

    input ids (rows, tokens) -> embeddings -> [prompt | embeddings] (rows, p + tokens, hidden) -> the frozen model

Attention mask and labels are lengthened with it: the prompt is attended to and has no label. As in PEFT, an encoder's
first position is then the prompt's first vector. Source: Lester et al. 2021.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.methods.attach import fingerprint, is_adapted, train_heads
from lora_lab.methods.base import Report
from lora_lab.methods.prompt import PromptTuning

NO_LABEL = -100  # what cross-entropy leaves out


class SoftPrompt(nn.Module):
    """prompt (tokens, hidden), fp32; calling it puts it before embeddings (rows, length, hidden)."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.prompt = nn.Parameter(start.detach().to(torch.float32, copy=True))

    def forward(self, embedded: Tensor) -> Tensor:
        rows = self.prompt.to(embedded.dtype).expand(len(embedded), -1, -1)
        return torch.cat([rows, embedded], dim=1)


def attach_prompt(model: nn.Module, method: PromptTuning) -> Report:
    """Freeze `model`, hang the prompt before its embeddings, and put a trained copy beside each head."""
    if is_adapted(model) or hasattr(model, "soft_prompt"):
        raise BadValue("this model carries an adapter already; take it out first with detach(model)")
    numbers, base = sum(p.numel() for p in model.parameters()), fingerprint(model)
    model.requires_grad_(False)
    table = model.get_input_embeddings().weight  # type: ignore[operator]
    model.soft_prompt = SoftPrompt(_start(table, method))
    model.register_forward_pre_hook(prepend, with_kwargs=True)
    report = Report(method, (), train_heads(model), numbers, base, beside=model.soft_prompt.prompt.numel())
    model.lora_lab_report = report  # type: ignore[assignment]
    return report


def _start(table: Tensor, method: PromptTuning) -> Tensor:
    """(tokens, hidden): vectors of random tokens, or random vectors as large as those of tokens."""
    if method.init == "vocabulary":
        return table[torch.randint(0, len(table), (method.tokens,))]
    return torch.randn(method.tokens, table.shape[1]) * table.float().std()


def prepend(model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    ids: Tensor = kwargs.pop("input_ids", args[0] if args else None)
    rows, tokens = len(ids), len(model.soft_prompt.prompt)
    kwargs["inputs_embeds"] = model.soft_prompt(model.get_input_embeddings()(ids))
    mask = kwargs.get("attention_mask")
    if mask is not None and mask.dim() == 2:  # one that says row by row who attends to whom is the caller's own
        kwargs["attention_mask"] = _longer(mask, tokens, 1)
    labels = kwargs.get("labels")
    if labels is not None and labels.shape == ids.shape and rows:
        kwargs["labels"] = _longer(labels, tokens, NO_LABEL)
    return (), kwargs


def _longer(values: Tensor, by: int, fill: int) -> Tensor:
    """(rows, by + length): `fill` before each row."""
    return torch.cat([values.new_full((len(values), by), fill), values], dim=1)

"""A soft prompt in a model: trained vectors that stand before the embeddings of every row. The method is in prompt.py.

    input ids (rows, tokens) -> embeddings -> [prompt | embeddings] (rows, p + tokens, hidden) -> the frozen model

Attention mask and labels are lengthened with it: the prompt is attended to and has no label. As in PEFT, an encoder's
first position is then the prompt's first vector. Source: Lester et al. 2021.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.methods.attach import attach_ahead
from lora_lab.methods.base import Report
from lora_lab.methods.beside import Ahead
from lora_lab.methods.prompt import PromptTuning

NO_LABEL = -100  # what cross-entropy leaves out


class SoftPrompt(Ahead):
    """prompt (tokens, hidden), fp32: the same ahead of every row."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.prompt = nn.Parameter(start.detach().to(torch.float32, copy=True))

    def vectors(self, rows: int) -> Tensor:
        return self.prompt.expand(rows, -1, -1)  # (rows, tokens, hidden)

    def prepend(self, model: nn.Module, kwargs: dict[str, Any], vectors: Tensor) -> dict[str, Any]:
        return before_embeddings(model, kwargs, vectors)


def attach_prompt(model: nn.Module, method: PromptTuning) -> Report:
    """Freeze `model`, hang the prompt before its embeddings, and put a trained copy beside each head."""
    table = model.get_input_embeddings().weight  # type: ignore[operator]
    return attach_ahead(model, method, "soft_prompt", lambda: SoftPrompt(_start(table, method)))


def _start(table: Tensor, method: PromptTuning) -> Tensor:
    """(tokens, hidden): vectors of random tokens, or random vectors as large as those of tokens."""
    if method.init == "vocabulary":
        return table[torch.randint(0, len(table), (method.tokens,))]
    return torch.randn(method.tokens, table.shape[1]) * table.float().std()


def before_embeddings(model: Any, kwargs: dict[str, Any], vectors: Tensor) -> dict[str, Any]:
    """A model's keyword arguments with vectors (rows, p, hidden) ahead of the embeddings of `input_ids`."""
    ids: Tensor = kwargs.pop("input_ids")
    embedded = model.get_input_embeddings()(ids)  # (rows, tokens, hidden)
    kwargs["inputs_embeds"] = torch.cat([vectors.to(embedded.dtype), embedded], dim=1)
    mask, labels, tokens = kwargs.get("attention_mask"), kwargs.get("labels"), vectors.shape[1]
    if mask is not None and mask.dim() == 2:  # one that says row by row who attends to whom is the caller's own
        kwargs["attention_mask"] = _longer(mask, tokens, 1)
    if labels is not None and labels.shape == ids.shape and len(ids):
        kwargs["labels"] = _longer(labels, tokens, NO_LABEL)
    return kwargs


def _longer(values: Tensor, by: int, fill: int) -> Tensor:
    """(rows, by + length): `fill` before each row."""
    return torch.cat([values.new_full((len(values), by), fill), values], dim=1)

"""A classifier that asks its encoder's last layer for one token only: the first, which is all that BERT's head reads.

Keys and values of that layer need every token; its queries, its output and its feed-forward part do not. Of its 12 d d
products a token, 2 remain: with six layers a seventh of a step and of an evaluation is saved. Answers and gradients are
the same, for what is left out reached neither.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("bert", "roberta", "xlm-roberta")  # whose heads read the first token alone


def answer_at_first_token(model: nn.Module) -> None:
    """Let the last layer of a classifier of BERT's kind work for its first token only; others are left alone."""
    config: Any = model.config
    if config.model_type in KINDS and type(model).__name__.endswith("ForSequenceClassification"):
        layer: Any = getattr(model, str(model.base_model_prefix)).encoder.layer[-1]
        layer.forward = MethodType(_forward, layer)


def _forward(layer: Any, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, **options: Any) -> Tensor:
    """hidden (rows, tokens, d) -> (rows, 1, d). A cache in the options holds a prefix of keys and values."""
    attention, first = layer.attention.self, hidden[:, :1]
    q, k, v = (
        part.view(*part.shape[:-1], -1, attention.attention_head_size).transpose(
            1, 2
        )  # (rows, heads, tokens, d / heads)
        for part in (attention.query(first), attention.key(hidden), attention.value(hidden))
    )
    cache = options.get("cache", options.get("past_key_values"))
    if cache is not None:
        k, v = cache.update(k, v, attention.layer_idx)
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    dropped = attention.dropout.p if attention.training else 0.0
    y = F.scaled_dot_product_attention(q, k, v, mask, dropped)
    y = layer.attention.output(y.transpose(1, 2).reshape(first.shape), first)
    out: Tensor = layer.feed_forward_chunk(y)
    return out

"""A prefix in a model: trained keys and values that every layer attends to besides those of the row's own tokens. The
method is in prefix.py.

    a layer's keys     [prefix | those of the tokens]      (rows, kv heads, p + tokens, head dim), values likewise

They are handed to the model as if they were earlier tokens', in the cache that generation uses. On a causal model the
text's positions go on after the prefix, as in PEFT. On an encoder they stay as they are: its first token, which the
head reads, has learnt to stand at position 0. Source: Li & Liang 2021.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from lora_lab.errors import BadValue
from lora_lab.methods.attach import attach_ahead
from lora_lab.methods.base import Report
from lora_lab.methods.beside import Ahead
from lora_lab.methods.prefix import PrefixTuning
from lora_lab.methods.soft import CACHE, Call, lengthen_mask, move_positions, refuse_two_stacks, under_way

NAME = "soft_prefix"
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
START = 0.02  # spread of the numbers at the start; all zeros would stay alike, token by token


class SoftPrefix(Ahead):
    """keys_values (layers, tokens, 2, kv_heads, head_dim), fp32: the same ahead of every row."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.keys_values = nn.Parameter(start)

    def vectors(self, rows: int, dtype: torch.dtype) -> Tensor:
        return self.keys_values.to(dtype).expand(rows, -1, -1, -1, -1, -1)  # (rows, layers, tokens, 2, heads, dim)

    def prepend(self, model: Any, call: Call, vectors: Tensor) -> Call:
        """With a cache that holds the prefix, and a mask and positions that tell of it; vectors as above."""
        if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise BadValue("checkpointing drops the cache, and the prefix with it: leave checkpointing out")
        tokens, encoder = vectors.shape[2], is_encoder(model)
        if not under_way(call):
            name = str(_cache_name(model))
            new = EncoderCache() if encoder else DynamicCache(config=model.config)
            call[name] = _filled(call.get(name) or new, vectors)
        lengthen_mask(call, tokens)
        if not encoder:
            move_positions(call, tokens)
        return call


class EncoderCache(DynamicCache):
    """A cache that an encoder's positions do not count from."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """None of what is in it is a token."""
        return 0


def attach_prefix(model: nn.Module, method: PrefixTuning) -> Report:
    """Freeze `model`, hang the prefix at it, and put a trained copy beside each head."""
    refuse_two_stacks(model, "prefix tuning")
    shape, device = shape_of(model, method), next(model.parameters()).device
    return attach_ahead(model, method, NAME, lambda: SoftPrefix(torch.randn(shape, device=device) * START))


def shape_of(model: Any, method: PrefixTuning) -> tuple[int, int, int, int, int]:
    """(layers, tokens, 2, kv_heads, head_dim). Raises: BadValue for a model whose layers take no keys and values."""
    config = model.config
    heads = getattr(config, "num_attention_heads", None)
    if _cache_name(model) is None or getattr(config, "kv_lora_rank", None) or not heads:
        raise BadValue(f"{type(model).__name__} takes no keys and values from outside; use prompt tuning there")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return config.num_hidden_layers, method.tokens, 2, _kv_heads(config, heads), head_dim


def _kv_heads(config: Any, heads: int) -> int:
    """Falcon and GPTBigCode have no field for it, but a word for one key and value that all heads share."""
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1
    return getattr(config, "num_key_value_heads", None) or heads


def _filled(cache: Any, vectors: Tensor) -> Any:
    """An empty cache with the prefix in each layer: keys and values (rows, kv_heads, tokens, head_dim)."""
    for number, layer in enumerate(vectors.permute(1, 3, 0, 4, 2, 5).unbind()):
        cache.update(*layer.unbind(), number)
    return cache


def _cache_name(model: Any) -> str | None:
    """What the model's body calls the cache, None when it takes none."""
    known = inspect.signature(type(model.base_model).forward).parameters
    return next((name for name in CACHE if name in known), None)


def is_encoder(model: Any) -> bool:
    """Whether the model's tokens attend to later ones too."""
    return model.config.model_type in ENCODERS and not getattr(model.config, "is_decoder", False)

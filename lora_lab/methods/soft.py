"""What soft prompts and prefixes share: a model's call is changed so that it knows of what stands ahead of its rows.

They see every call: training, scoring, and each step of `model.generate`. There the prompt or prefix enters at the
first step alone; from then on it stands in the cache, and only the attention mask and the positions still tell of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue

CACHE = ("cache", "past_key_values")  # what transformers calls keys and values of earlier tokens, the newest name first

Call = dict[str, Any]  # a model's keyword arguments


def refuse_two_stacks(model: nn.Module, what: str) -> None:
    """Raises BadValue for a model with an encoder and a decoder, and for one without a table of tokens."""
    config, name = getattr(model, "config", None), type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise BadValue(f"{what} is for a model with one stack of layers; use lora on {name}")
    if config is None or not hasattr(model, "get_input_embeddings") or not _has_table(model):
        raise BadValue(f"{what} is for a transformers model that reads tokens, and {name} is none; use lora")


def _has_table(model: Any) -> bool:
    try:
        return isinstance(model.get_input_embeddings().weight, Tensor)
    except (AttributeError, NotImplementedError):  # pictures or sounds go in
        return False


def under_way(call: Call) -> bool:
    """Whether earlier tokens, and what stands ahead of them, are in the cache already."""
    cache = next((call[name] for name in CACHE if call.get(name) is not None), None)
    return cache is not None and bool(cache.get_seq_length())


def lengthen_mask(call: Call, tokens: int) -> None:
    """All rows attend to what stands ahead of them."""
    mask = call.get("attention_mask")
    if mask is not None and mask.dim() == 2:  # one that says row by row who attends to whom is the caller's own
        call["attention_mask"] = longer(mask, tokens, 1)


def move_positions(call: Call, tokens: int) -> None:
    """The rows' own tokens come later by so many places."""
    if call.get("position_ids") is not None:
        call["position_ids"] = call["position_ids"] + tokens


def longer(values: Tensor, by: int, fill: int) -> Tensor:
    """(rows, by + length): `fill` before each row."""
    return torch.cat([values.new_full((len(values), by), fill), values], dim=1)

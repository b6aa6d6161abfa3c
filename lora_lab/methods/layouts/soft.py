"""PEFT's layout of prompts and prefixes (PROMPT_TUNING, P_TUNING, PREFIX_TUNING): one tensor, and the head.

    prompt_embeddings                      a prompt: (tokens, hidden); of P-tuning the finished vectors alone
                                           a prefix: (tokens, layers * 2 * token_dim), a layer's keys before its values
    base_model.classifier.weight | bias    the head, whose key is shorter here than with LoRA

token_dim is kv_heads * head_dim in a prefix, so less than the hidden size where heads share keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.methods.attach import Ahead
from lora_lab.methods.base import Method, Report
from lora_lab.methods.layouts.base import Layout, common_config, fill_heads, head_tensors
from lora_lab.methods.soft import PREFIX, PROMPT, PrefixTuning, PromptTuning, PTuning, is_encoder, prefix_shape

KEY, HEAD = "prompt_embeddings", "base_model."
KINDS = {"prompt": "PROMPT_TUNING", "ptuning": "P_TUNING", "prefix": "PREFIX_TUNING"}  # by the method's name


class SoftLayout(Layout):
    """What stands ahead of a model's rows, as one table."""

    peft_types = tuple(KINDS.values())
    decisive = ("peft_type", "num_virtual_tokens", "token_dim", "num_layers")

    @torch.no_grad()
    def tensors(self, model: nn.Module, report: Report) -> dict[str, Tensor]:
        return {KEY: _table(_ahead(model)), **head_tensors(model, HEAD)}

    def config(self, model: nn.Module, report: Report) -> dict[str, Any]:
        method, base = report.method, model.config
        assert isinstance(method, PromptTuning | PTuning | PrefixTuning)
        heads, width = getattr(base, "num_attention_heads", None), base.hidden_size  # type: ignore[union-attr]
        own: dict[str, Any] = {}
        if isinstance(method, PrefixTuning):
            *_, heads, size = prefix_shape(model, method.tokens)
            width, own = heads * size, {"prefix_projection": False, "encoder_hidden_size": heads * size}
        elif isinstance(method, PTuning):
            own = {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": method.hidden or width}
        return {
            "peft_type": KINDS[method.name],
            "num_virtual_tokens": method.tokens,
            "token_dim": width,
            "num_transformer_submodules": 1,
            "num_attention_heads": heads,
            "num_layers": base.num_hidden_layers,  # type: ignore[union-attr]
            **own,
            **common_config(model, report),
        }

    def method(self, config: Mapping[str, Any], model: nn.Module) -> Method:
        tokens, kind = config.get("num_virtual_tokens"), config["peft_type"]
        if not isinstance(tokens, int):
            raise BadValue("adapter_config.json has no num_virtual_tokens, so its prompt's length is unknown")
        if kind == KINDS["prefix"]:
            if is_encoder(model):
                raise BadValue(
                    "PEFT's prefix on an encoder moves the text's positions, lora_lab's does not, so the answers would "
                    "differ: train the prefix here, or use this file with PEFT"
                )
            return PrefixTuning(tokens=tokens)
        if kind == KINDS["ptuning"]:
            return PTuning(tokens=tokens, hidden=config.get("encoder_hidden_size"))
        return PromptTuning(
            tokens=tokens, init="random" if config.get("prompt_tuning_init") == "RANDOM" else "vocabulary"
        )

    @torch.no_grad()
    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        ahead, table = _ahead(model), tensors[KEY]
        if isinstance(report.method, PrefixTuning):
            layers, tokens, *layer = ahead.keys_values.shape
            ahead.keys_values.copy_(table.view(tokens, layers, *layer).transpose(0, 1))
        elif isinstance(report.method, PTuning):
            report.method.settle(ahead, table)
        else:
            ahead.prompt.copy_(table)
        fill_heads(model, tensors, HEAD)

    def lighter(self, method: Method) -> Method:
        # Of P-tuning a file holds the finished vectors: the network that made them may be as small as can be.
        return replace(method, hidden=1) if isinstance(method, PTuning) else method

    def check(self, config: Mapping[str, Any]) -> None:
        if config.get("num_transformer_submodules") not in (None, 1):
            raise BadValue("the adapter was made for a model with two stacks of layers, which lora_lab does not prompt")


def _ahead(model: nn.Module) -> Any:
    ahead: Ahead = getattr(model, PREFIX, None) or getattr(model, PROMPT)
    return ahead


def _table(ahead: Any) -> Tensor:
    """As the file has it: (tokens, numbers of one token)."""
    vectors: Tensor = ahead.method.vectors(ahead)
    return vectors.transpose(0, 1).flatten(1) if isinstance(ahead.method, PrefixTuning) else vectors

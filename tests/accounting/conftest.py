"""Small models of every family, built by transformers on the meta device: shapes without numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from lora_lab.accounting.models import Architecture, describe, meta_model
from lora_lab.methods.targets import Site

# Odd sizes, so that no two of them agree by chance.
SMALL: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 50},
    "roberta": {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 70},
    "xlm-roberta": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 31},
    "deberta-v2": {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 50},
    "deberta-v2 relative": {
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 50,
        "relative_attention": True,
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "conv_kernel_size": 3,
        "position_buckets": 8,
    },
    "deberta-v2 apart": {
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 50,
        "type_vocab_size": 2,
        "relative_attention": True,
        "max_relative_positions": 9,
        "pos_att_type": ["c2p", "p2c"],
    },
    "gpt2": {"n_embd": 36, "n_layer": 3, "n_head": 4, "n_positions": 40},
    "gpt2 inner": {"n_embd": 36, "n_layer": 2, "n_head": 3, "n_inner": 55, "tie_word_embeddings": False},
    "llama": {
        "hidden_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 50,
        "head_dim": 14,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama tied": {
        "hidden_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 50,
        "tie_word_embeddings": True,
    },
    "mistral": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 18},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 14},
    "gemma3_text": {"num_key_value_heads": 1, "head_dim": 14},
    "phi3": {"num_key_value_heads": 2, "pad_token_id": 0},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 3},
    "qwen3_moe": {
        "num_key_value_heads": 2,
        "num_hidden_layers": 5,
        "head_dim": 14,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 22,
        "mlp_only_layers": [3],
        "decoder_sparse_step": 2,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "num_hidden_layers": 3,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 26,
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "q_lora_rank": 6,
        "kv_lora_rank": 5,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 7,
        "attention_bias": True,
    },
    "deepseek_v3 direct": {
        "num_key_value_heads": 4,
        "first_k_dense_replace": 0,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "q_lora_rank": None,
    },
    "gpt_oss": {"num_key_value_heads": 2, "head_dim": 18, "num_local_experts": 5},
    "t5": {"d_model": 36, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "d_kv": 10, "d_ff": 50},
    "t5 gated": {"d_model": 36, "num_layers": 2, "num_heads": 4, "d_ff": 50, "feed_forward_proj": "gated-gelu"},
}
DECODER = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 50}
CLASSIFIERS = [name for name in SMALL if not name.startswith("t5")]


def small_config(case: str) -> dict[str, Any]:
    """The config.json of a small model of this family; "llama tied" is a variant of llama."""
    own, family = SMALL[case], case.split()[0]
    base = {} if family.startswith(("gpt2", "t5")) or "bert" in family else DECODER
    return {"model_type": family, "vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, **base, **own}


def real_model(config: dict[str, Any], num_labels: int | None = None, device: str = "meta") -> torch.nn.Module:
    """What transformers makes of that config; on the meta device it has shapes but no numbers."""
    options = {key: value for key, value in config.items() if key != "model_type"}
    made = transformers.AutoConfig.for_model(config["model_type"], **options)
    if num_labels is not None:
        made.num_labels = num_labels
        auto = transformers.AutoModelForSequenceClassification
    elif config["model_type"] == "t5":
        auto = transformers.AutoModelForSeq2SeqLM
    else:
        auto = transformers.AutoModel if "bert" in config["model_type"] else transformers.AutoModelForCausalLM
    with torch.device(device):
        return auto.from_config(made)


def described(config: dict[str, Any], num_labels: int | None = None) -> Architecture:
    """The architecture of that config."""
    return describe(meta_model(config, num_labels))


def attachable(architecture: Architecture) -> list[Site]:
    """The sites that a real model has: an expert is counted as one, and takes no adapter."""
    return [site for site in architecture.sites if site.kind != "expert"]


@pytest.fixture(scope="module", autouse=True)
def tiny_models(one_thread):
    """All of them on one thread."""

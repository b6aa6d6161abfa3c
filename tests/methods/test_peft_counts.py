"""Tests that LoRA's parameter count from a config equals PEFT's, for many types of models."""

import peft
import pytest

from lora_lab import LoRA, params
from lora_lab.accounting.models import describe, meta_model

SIZE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = {**SIZE, "num_key_value_heads": 2}
PADDED = {**GROUPED, "pad_token_id": 0}
EXPERTS = {
    "num_hidden_layers": 3, "first_k_dense_replace": 1, "moe_intermediate_size": 26, "n_routed_experts": 8,
    "n_shared_experts": 2, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "q_lora_rank": 6,
    "kv_lora_rank": 5, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 7,
}  # fmt: skip
TYPES: dict[str, dict] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "starcoder2"), GROUPED),
    **dict.fromkeys(("stablelm", "granite", "cohere"), GROUPED),
    **dict.fromkeys(("phi3", "olmo2", "glm"), PADDED),
    "nemotron": {**GROUPED, "head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97},
    "gpt_neox": SIZE,
    "opt": {**SIZE, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97},
    "falcon": SIZE,
    "mixtral": {**GROUPED, "num_local_experts": 3},
    "deepseek_v3": {**SIZE, "num_key_value_heads": 4, **EXPERTS},
    "gpt_oss": {**GROUPED, "head_dim": 8, "num_local_experts": 4},
    **dict.fromkeys(("bert", "roberta"), SIZE),
    "deberta-v2": {**SIZE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "t5": {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 48, "vocab_size": 97},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TYPES)
def test_count_equals_peft(kind):
    config = {"model_type": kind, **TYPES[kind]}

    def peft_count(targets: list[str] | str, exclude: str | None = None) -> int:
        lora = peft.LoraConfig(r=2, target_modules=targets, exclude_modules=exclude)
        return sum(p.numel() for p in peft.get_peft_model(meta_model(config), lora).parameters() if p.requires_grad)

    sites = [s for s in describe(meta_model(config)).sites if s.kind == "linear" and s.out_slice is None]
    attention = [s for s in sites if s.role not in ("head", "pooler") and "mlp" not in s.module]
    names = list({s.module.rpartition(".")[2] for s in attention})
    assert params(meta_model(config), LoRA(rank=2, targets=names)).trainable == peft_count(names) > 0
    if kind not in ("mixtral", "deepseek_v3"):  # PEFT's all-linear includes experts and routers
        count = params(meta_model(config), LoRA(rank=2, targets="all-linear")).trainable
        assert count == peft_count("all-linear", exclude=r".*pooler\.dense" if "bert" in kind else None)


def test_role_in_a_fused_layer_of_unknown_order_is_refused():
    with pytest.raises(LookupError, match="is a part of query_key_value, whose parts are in an unknown order"):
        params(meta_model({"model_type": "falcon", **TYPES["falcon"]}), LoRA(rank=2))

import pytest
import torch

from lora_lab.accounting.models import Architecture, auto_class, describe, known_config, meta_model
from lora_lab.training.assets import home

# Unusual sizes, so that no two of them are equal by chance.
BERT = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 50}
DECODER = {**BERT, "hidden_size": 40, "pad_token_id": 0}
GROUPED = {**DECODER, "num_key_value_heads": 2}
SMALL = {
    **dict.fromkeys(("mistral", "qwen2", "phi", "phi3", "starcoder2", "stablelm", "granite", "cohere"), GROUPED),
    **dict.fromkeys(("olmo2", "glm"), GROUPED), **dict.fromkeys(("gpt_neox", "falcon"), DECODER),
    "opt": {**DECODER, "ffn_dim": 50, "word_embed_proj_dim": 16},
    "bloom": {"hidden_size": 40, "n_layer": 2, "n_head": 4},
    **dict.fromkeys(("biogpt", "modernbert-decoder"), DECODER),  # with unusual names of heads
    "bert": {**BERT, "num_hidden_layers": 3},
    "roberta": {**BERT, "num_attention_heads": 6, "intermediate_size": 70},
    "deberta-v2 relative": {
        **BERT, "relative_attention": True, "position_biased_input": False, "norm_rel_ebd": "layer_norm",
        "share_att_key": True, "pos_att_type": "p2c|c2p", "conv_kernel_size": 3, "position_buckets": 8,
    },
    "gpt2": {"n_embd": 36, "n_layer": 3, "n_head": 4, "n_positions": 512, "pad_token_id": 0},
    "gpt2 inner": {"n_embd": 36, "n_layer": 2, "n_head": 3, "n_inner": 55, "tie_word_embeddings": False},
    "llama": {**GROUPED, "num_hidden_layers": 3, "head_dim": 14, "attention_bias": True, "mlp_bias": True},
    "llama tied": {**DECODER, "num_hidden_layers": 3, "tie_word_embeddings": True},
    "qwen3": {**GROUPED, "head_dim": 18},
    "gemma2": {**GROUPED, "head_dim": 14},
    "gemma3_text": {**GROUPED, "head_dim": 14, "query_pre_attn_scalar": 14},
    "nemotron": {**GROUPED, "head_dim": 10},
    "mixtral": {**GROUPED, "num_local_experts": 3},
    "qwen3_moe": {
        **GROUPED, "num_hidden_layers": 5, "head_dim": 14, "num_experts": 5, "num_experts_per_tok": 2,
        "moe_intermediate_size": 22, "mlp_only_layers": [3], "decoder_sparse_step": 2,
    },
    "deepseek_v3": {
        **DECODER, "num_hidden_layers": 3, "num_key_value_heads": 4, "first_k_dense_replace": 1,
        "moe_intermediate_size": 26, "n_routed_experts": 8, "n_shared_experts": 2, "num_experts_per_tok": 2,
        "n_group": 2, "topk_group": 1, "q_lora_rank": 6, "kv_lora_rank": 5, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4, "v_head_dim": 7, "attention_bias": True,
    },
    "gpt_oss": {**GROUPED, "head_dim": 18, "num_local_experts": 5},
    "t5": {"d_model": 36, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "d_kv": 10, "d_ff": 50},
    "t5 gated": {"d_model": 36, "num_layers": 2, "num_heads": 4, "d_ff": 50, "feed_forward_proj": "gated-gelu"},
}  # fmt: skip


def small_config(case: str, **changes):
    """Return the config.json of a small model; "llama tied" is a variant of llama."""
    size = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, **SMALL[case]}
    return {"model_type": case.split()[0], **size, **changes}


def real_model(config, num_labels: int | None = None, device: str = "meta") -> torch.nn.Module:
    known = known_config(config)
    known.num_labels = num_labels or 2
    with torch.device(device):
        return auto_class(known, classify=num_labels is not None).from_config(known)


def described(config, num_labels: int | None = None) -> Architecture:
    return describe(meta_model(config, num_labels))


def attachable(architecture: Architecture):
    """Return the sites that can take an adapter: experts are counted but take none."""
    return [site for site in architecture.sites if site.kind != "expert"]


@pytest.fixture(scope="module", autouse=True)
def fresh_cache(tmp_path_factory):
    """Fits come from the code under test, not from the user's cache; all tests of the session share them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORA_LAB_HOME", str(home()))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "fits"))
        yield


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

"""Where an interpolated trace might go wrong: windows, patterns of layers, experts, operations that grow in number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lora_lab import FullFineTuning, LoRA
from lora_lab.accounting import memory as accountant
from lora_lab.accounting import trace
from lora_lab.accounting.fit import Depth, NoFit, Regime
from lora_lab.accounting.memory import made, memory, predicted, traced
from lora_lab.accounting.setup import Setup

SIZE = {
    "vocab_size": 503, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
    "head_dim": 16, "max_position_embeddings": 8192, "pad_token_id": 0,
}  # fmt: skip
MISTRAL = {**SIZE, "model_type": "mistral", "num_hidden_layers": 8, "sliding_window": 1024}
GEMMA3 = {
    **SIZE,
    "model_type": "gemma3_text",
    "num_hidden_layers": 26,
    "sliding_window": 512,
    "query_pre_attn_scalar": 16,
}
GPT_OSS = {**SIZE, "model_type": "gpt_oss", "num_hidden_layers": 12, "num_local_experts": 4, "sliding_window": 128}
DEEPSEEK = {
    **SIZE, "model_type": "deepseek_v3", "num_hidden_layers": 12, "num_key_value_heads": 4, "first_k_dense_replace": 3,
    "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "head_dim": 8,
}  # fmt: skip
MIXTRAL = {**SIZE, "model_type": "mixtral", "num_hidden_layers": 8, "num_local_experts": 4, "num_experts_per_tok": 2}
QWEN3_NEXT = {
    **SIZE, "model_type": "qwen3_next", "num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "linear_num_value_heads": 4,
    "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
}  # fmt: skip
ALL = LoRA(rank=4, targets="all-linear")
LATENT = LoRA(rank=4, targets=("q_b_proj", "kv_b_proj"))


def both(config: dict[str, Any], method: Any, setup: Setup) -> None:
    """The fit and the trace of the very case agree to the byte, term by term. Raises: NoFit where there is no fit."""
    found = predicted("", config, method, setup)
    exact = traced(config, method, setup)
    assert found.categories == exact.categories
    assert found.phases == exact.phases
    assert found.flops == exact.flops


@pytest.mark.parametrize("seq", [512, 1024, 2048])
def test_mistral_on_both_sides_of_its_window(seq):
    both(MISTRAL, LoRA(rank=4), Setup(batch=2, seq=seq))


@pytest.mark.parametrize("seq", [256, 1024])
def test_gemma3_whose_layers_alternate(seq):
    both(GEMMA3, FullFineTuning(), Setup(batch=2, seq=seq))


def test_gpt_oss_whose_layers_alternate_and_hold_experts():
    both(GPT_OSS, LoRA(rank=4), Setup(batch=2, seq=256, dtype="fp32"))


@pytest.mark.parametrize("method", [LATENT, FullFineTuning()])
def test_deepseek_whose_first_layers_are_dense(method):
    both(DEEPSEEK, method, Setup(batch=2, seq=128))


@pytest.mark.parametrize("quantised", ["nf4", "int8"])
def test_mixtral_on_a_base_in_few_bits(quantised):
    both(MIXTRAL, LoRA(rank=4), Setup(batch=2, seq=128, quantised=quantised))


def test_a_batch_of_one_row_has_a_fit_of_its_own():
    for batch in (1, 2):
        both(MISTRAL, ALL, Setup(batch=batch, seq=320))


def test_where_operations_grow_with_the_rows_the_case_itself_is_traced():
    setup = Setup(batch=1, seq=96)
    with pytest.raises(NoFit):
        predicted("", QWEN3_NEXT, LoRA(rank=2), setup)
    assert memory(QWEN3_NEXT, LoRA(rank=2), batch=1, seq=96).mode == "traced"


# ---- the rule that accepts a fit, tested by breaking what it guards


def test_a_fit_across_a_window_is_not_accepted():
    across = Regime(False, 992, 0)  # points on both sides of 1,024
    with pytest.raises(NoFit):
        made(MISTRAL, LoRA(rank=4), Setup(batch=2, seq=992), across)


def test_a_fit_through_irregular_layers_is_not_accepted(monkeypatch):
    monkeypatch.setattr(trace, "depth_of", lambda config: Depth(12, 0, 1))
    with pytest.raises(NoFit):
        made(DEEPSEEK, LATENT, Setup(batch=2, seq=64), Regime(False, 32, 0))


def test_a_fit_in_steps_of_half_a_pattern_is_not_accepted(monkeypatch):
    real = trace.depth_of(GEMMA3)
    assert real.period == 6
    monkeypatch.setattr(trace, "depth_of", lambda config: replace(real, period=3))
    with pytest.raises(NoFit):
        made(GEMMA3, LoRA(rank=4), Setup(batch=2, seq=1024), Regime(False, 512, 0))


def test_padded_rows_are_a_tenth_of_a_percent_off_at_most_between_multiples_of_32():
    setup = Setup(batch=3, seq=333, padded=True)
    found = accountant.estimate(MISTRAL, ALL, setup).peak
    exact = accountant.estimate(MISTRAL, ALL, setup, trace=True).peak
    assert found == pytest.approx(exact, rel=0.001)
    both(MISTRAL, ALL, Setup(batch=3, seq=320, padded=True))

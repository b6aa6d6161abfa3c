"""Generation: the cache is that of the real model to the byte, and the weights are those that training has."""

from __future__ import annotations

import pytest
import torch

from lora_lab import LoRA, PrefixTuning, PromptTuning
from lora_lab.accounting.memory import inference
from lora_lab.accounting.setup import Setup
from lora_lab.errors import BadValue
from tests.accounting.conftest import real_model, small_config


@pytest.mark.parametrize("case", ["gpt2", "llama", "mistral", "qwen2", "qwen3", "phi3"])
def test_the_cache_of_a_real_model_to_the_byte(case):
    config = small_config(case)
    model = real_model(config, device="cpu").eval()
    for rows, tokens in ((1, 7), (3, 5)):
        with torch.no_grad():
            cache = model(torch.ones(rows, tokens, dtype=torch.long), use_cache=True).past_key_values
        held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
        assert inference(config, Setup(batch=rows, seq=tokens, dtype="fp32")).categories["cache"] == held


def test_an_adapter_that_is_not_merged_comes_on_top_and_nf4_shrinks():
    plain, setup = inference("llama-2-7b", Setup()), Setup(quantised="nf4")
    beside = inference("llama-2-7b", Setup(), LoRA())
    assert beside.peak - plain.peak == 4 * 4_194_304
    # LitGPT measured 4.26 GB for nf4-dq and 13.52 GB for bf16, a short prompt's cache included.
    assert inference("llama-2-7b", setup).categories["weights"] / 1e9 == pytest.approx(4.26 - 0.3, abs=0.3)
    assert plain.peak / 1e9 == pytest.approx(13.52, abs=0.3)


@pytest.mark.parametrize("method", [PromptTuning(20), PrefixTuning(20)], ids=lambda m: m.name)
def test_what_stands_before_the_tokens_is_in_the_cache_too(method):
    cached, beside = (inference("llama-3.2-1b", Setup(batch=3, seq=seq), m) for seq, m in ((120, None), (100, method)))
    assert cached.categories["cache"] == beside.categories["cache"]


def test_what_has_no_such_cache_is_refused_and_windows_are_noted():
    for name in ("bert-base", "t5-base", "deepseek-v3"):
        with pytest.raises(BadValue, match=name):
            inference(name, Setup())
    with pytest.raises(BadValue, match="one device"):
        inference("llama-2-7b", Setup(shard="fsdp:2"))
    assert any("sliding window" in note for note in inference("gemma-2-9b", Setup()).notes)

"""Bottlenecks: where they are, what they compute, and what is refused. The contract is in test_every_method.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lora_lab import Bottleneck, params
from lora_lab.methods.attach import adapter_layers
from lora_lab.methods.io import file_of
from tests.accounting.conftest import real_model, small_config
from tests.conftest import logits, tiny
from tests.methods.conftest import refused, with_adapter


@pytest.mark.parametrize(
    ("method", "places"),
    [
        (Bottleneck(size=4, layers=1), ["1.self_attn.o_proj", "1.mlp.down_proj"]),
        (Bottleneck(size=4, placement="lin"), ["0.mlp.down_proj", "1.mlp.down_proj"]),
    ],
)
def test_each_placement_counts_as_the_accountant_does_and_starts_without_effect(method, places):
    model = tiny("llama")
    assert method.attach(model).adapter_parameters == params(tiny("llama"), method).trainable
    assert [path for path, _ in adapter_layers(model)] == [f"model.layers.{place}" for place in places]
    torch.testing.assert_close(logits(model), logits(tiny("llama")), rtol=1e-6, atol=1e-6)


def test_on_a_bf16_base_it_stays_in_fp32():
    model = tiny("bert").bfloat16()
    report = Bottleneck(size=4, placement="lin").attach(model)
    assert {p.dtype for p in file_of(model, report)[0].values()} == {torch.float32}
    assert logits(model).isfinite().all()


def test_it_computes_what_it_says():
    layer = with_adapter("roberta", Bottleneck(size=4, placement="lin")).roberta.encoder.layer[0].output.dense
    x = torch.randn(2, 3, 64)
    y = layer.base_layer(x)
    torch.testing.assert_close(layer(x), y + layer.up(F.gelu(layer.down(layer.norm(y)))))


@pytest.mark.parametrize(
    ("model", "method", "words"),
    [
        (lambda: tiny("bert"), Bottleneck(size=33), "at most 32"),
        (lambda: tiny("bert"), Bottleneck(size=4, layers=3), "has 2 layers"),
        (lambda: real_model(small_config("mixtral"), None, device="cpu"), Bottleneck(size=2), "does not fit"),
    ],
)
def test_what_cannot_be_is_one_sentence(model, method, words):
    made = model()
    with refused(made, words):
        method.attach(made)

"""Bottlenecks: where they are, what they compute, and what is refused. The contract is in test_every_method.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lora_lab import Bottleneck, params
from lora_lab.errors import BadValue
from lora_lab.methods.attach import adapter_layers
from lora_lab.methods.io import file_of
from tests.accounting.conftest import real_model, small_config
from tests.conftest import logits, randomise, snapshot, tiny


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize(
    ("method", "layers"),
    [
        (Bottleneck(size=4), 4),
        (Bottleneck(size=4, placement="lin"), 2),
        (Bottleneck(size=4, placement="pfeiffer", layers=1), 1),
    ],
)
def test_each_placement_counts_as_the_accountant_does_and_starts_without_effect(kind, method, layers):
    model = tiny(kind)
    report = method.attach(model)
    assert report.adapter_parameters == params(tiny(kind), method).trainable
    assert len(report.parts) == layers
    torch.testing.assert_close(logits(model), logits(tiny(kind)), rtol=1e-6, atol=1e-6)


def test_they_are_behind_attention_and_feed_forward_of_the_topmost_layers():
    model = tiny("llama")
    Bottleneck(size=4, layers=1).attach(model)
    layer = "model.layers.1"
    assert [path for path, _ in adapter_layers(model)] == [f"{layer}.self_attn.o_proj", f"{layer}.mlp.down_proj"]


def test_on_a_bf16_base_it_stays_in_fp32():
    model = tiny("bert").bfloat16()
    report = Bottleneck(size=4, placement="lin").attach(model)
    assert {p.dtype for p in file_of(model, report)[0].values()} == {torch.float32}
    assert logits(model).isfinite().all()


def test_it_computes_what_it_says():
    model = tiny("roberta")
    Bottleneck(size=4, placement="lin").attach(model)
    randomise(model)
    layer = model.roberta.encoder.layer[0].output.dense
    x = torch.randn(2, 3, 64)
    y = layer.base_layer(x)
    torch.testing.assert_close(layer(x), y + layer.up(F.gelu(layer.down(layer.norm(y)))))


@pytest.mark.parametrize(
    ("model", "method", "words"),
    [
        (lambda: tiny("bert"), Bottleneck(size=33), "at most 32"),
        (lambda: tiny("bert"), Bottleneck(size=4, layers=3), "has 2 layers"),
        (lambda: real_model(small_config("mixtral"), None, device="cpu"), Bottleneck(size=2), "does not fit"),
        (lambda: real_model(small_config("t5"), None, device="cpu"), Bottleneck(size=2), "does not fit"),
    ],
)
def test_what_cannot_be_is_one_sentence(model, method, words):
    made = model()
    before = snapshot(made)
    with pytest.raises(BadValue, match=words):
        method.attach(made)
    assert snapshot(made) == before

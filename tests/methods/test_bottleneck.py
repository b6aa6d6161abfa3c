"""Bottlenecks: where they stand, that each placement counts as the accountant does, and what they are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_lab import Bottleneck, params
from lora_lab.errors import BadValue
from lora_lab.methods.attach import adapter_layers
from lora_lab.methods.io import file_of
from tests.accounting.conftest import real_model, small_config
from tests.conftest import logits, randomise, snapshot, tiny

KINDS = ("bert", "roberta", "gpt2", "llama")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "method",
    [
        Bottleneck(size=4),
        Bottleneck(size=4, placement="lin"),
        Bottleneck(size=4, placement="pfeiffer"),
        Bottleneck(size=4, placement="pfeiffer", layers=1),
    ],
    ids=str,
)
def test_each_placement_counts_as_the_accountant_does_and_starts_without_effect(kind, method):
    model = tiny(kind)
    report = method.attach(model)
    assert report.adapter_parameters == params(tiny(kind), method).trainable
    torch.testing.assert_close(logits(model), logits(tiny(kind)), rtol=1e-6, atol=1e-6)


def test_they_stand_behind_attention_and_feed_forward_part_of_each_layer():
    model = tiny("bert")
    Bottleneck(size=4).attach(model)
    layers = [f"bert.encoder.layer.{n}" for n in (0, 1)]
    wanted = [f"{layer}.{part}output.dense" for layer in layers for part in ("attention.", "")]
    assert [path for path, _ in adapter_layers(model)] == [*wanted, "classifier"]


def test_of_the_topmost_layer_only():
    model = tiny("llama")
    Bottleneck(size=4, layers=1, placement="lin").attach(model)
    assert [path for path, _ in adapter_layers(model)] == ["model.layers.1.mlp.down_proj"]


def test_it_computes_what_it_says():
    model = tiny("roberta")
    Bottleneck(size=4, placement="lin").attach(model)
    randomise(model)
    layer = model.roberta.encoder.layer[0].output.dense
    x = torch.randn(2, 3, 64)
    y = layer.base_layer(x)
    h = F.gelu(layer.down(layer.norm(y)))
    torch.testing.assert_close(layer(x), y + layer.up(h))


def test_on_a_bf16_base_it_stays_in_fp32_itself():
    model = tiny("bert").bfloat16()
    report = Bottleneck(size=4, placement="lin").attach(model)
    assert {p.dtype for p in file_of(model, report)[0].values()} == {torch.float32}
    assert logits(model).isfinite().all()


@pytest.mark.parametrize(
    ("model", "method", "words"),
    [
        (lambda: tiny("bert"), Bottleneck(size=33), "at most 32"),
        (lambda: tiny("bert"), Bottleneck(size=4, layers=3), "has 2 layers"),
        (lambda: real_model(small_config("mixtral"), None, device="cpu"), Bottleneck(size=2), "finds no place"),
        (lambda: real_model(small_config("t5"), None, device="cpu"), Bottleneck(size=2), "finds no place"),
    ],
)
def test_what_cannot_be_is_one_sentence(model, method, words):
    made: nn.Module = model()
    before = snapshot(made)
    with pytest.raises(BadValue, match=words) as caught:
        method.attach(made)
    assert "\n" not in str(caught.value)
    assert snapshot(made) == before

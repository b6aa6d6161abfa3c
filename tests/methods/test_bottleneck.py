"""Bottlenecks: where they are, what they compute, and what is refused. The contract is in test_every_method.py."""

import pytest
import torch
from torch.nn import functional as F

from lora_lab import Bottleneck, params
from lora_lab.methods.attach import adapter_layers
from tests.conftest import logits, tiny
from tests.methods.conftest import with_adapter


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


def test_it_computes_what_it_says():
    layer = with_adapter("roberta", Bottleneck(size=4, placement="lin")).roberta.encoder.layer[0].output.dense
    x = torch.randn(2, 3, 64)
    y = layer.base_layer(x)
    torch.testing.assert_close(layer(x), y + layer.up(F.gelu(layer.down(layer.norm(y)))))

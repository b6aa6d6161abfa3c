"""Updates read from a model are those that its layers add."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from lora_course.experiments.updates import updates_between, updates_of_adapter
from lora_lab import LoRA
from lora_lab.errors import BadValue, NotFound
from tests.conftest import lora_layers, randomise, tiny


@pytest.mark.parametrize(("kind", "count"), [("bert", 4), ("gpt2", 4)])
def test_an_adapter_s_updates_are_what_its_layers_add(kind: str, count: int):
    model = tiny(kind)
    LoRA(rank=3, targets=("q", "v")).attach(model)
    randomise(model)
    found = updates_of_adapter(model)
    assert len(found) == count
    assert not any("base_layer" in name for name in found)
    for update, layer in zip(found.values(), lora_layers(model), strict=True):
        assert np.allclose(update.matrix, layer.delta_weight().detach().numpy(), atol=1e-5)
        assert update.a.shape == (3, 32)
        assert update.weight.shape == update.matrix.shape
        assert len(update.factors.values) == 3
        assert update.relative == pytest.approx(
            (layer.delta_weight().norm() / layer.frozen_weight().norm()).item(), rel=1e-4
        )


def test_between_two_models_is_the_difference_of_their_weights():
    before = tiny("bert")
    after = copy.deepcopy(before)
    layer = after.bert.encoder.layer[1].output.dense
    step = 0.01 * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    layer.weight.data += step
    found = updates_between(before, after)
    assert len(found) == 2 * 6 + 1  # and the pooler, not the head
    moved = [name for name, update in found.items() if update.factors.norm > 0]
    assert moved == ["bert.encoder.layer.1.output.dense"]
    assert np.allclose(found[moved[0]].matrix, step.numpy(), atol=1e-6)


def test_what_cannot_be_compared_is_said():
    with pytest.raises(BadValue, match="carries no plain LoRA"):
        updates_of_adapter(tiny("bert"))
    with pytest.raises(NotFound, match="no layer"):
        updates_between(tiny("bert"), tiny("gpt2"))

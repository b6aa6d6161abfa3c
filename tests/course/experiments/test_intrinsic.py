"""A random subspace of d numbers: it begins as the model, its columns are at right angles, and it trains."""

from __future__ import annotations

import copy

import pytest
import torch

from lora_course.experiments.intrinsic import (
    UNIT,
    InSubspace,
    Point,
    dimensions,
    intrinsic_dimension,
    put_into_subspace,
)
from lora_lab.errors import BadValue
from tests.conftest import logits, tiny


def subspaced(d: int, seed: int = 0):
    model = copy.deepcopy(tiny("bert"))
    theta = put_into_subspace(model, d, seed)
    return model, theta, [m for m in model.modules() if isinstance(m, InSubspace)]


def test_it_begins_as_the_model_and_its_seed_draws_the_subspace():
    model, theta, layers = subspaced(7)
    assert torch.equal(logits(model), logits(tiny("bert")))
    assert len(layers) == 2 * 6 + 1
    assert sum(p is theta for p in model.parameters()) == 1
    theta.data.normal_(generator=torch.Generator().manual_seed(0))
    moved = layers[0].delta_weight()
    assert not torch.equal(logits(model), logits(tiny("bert")))
    for seed, same in ((0, True), (1, False)):
        _, other, others = subspaced(7, seed)
        other.data.copy_(theta)
        assert torch.equal(others[0].delta_weight(), moved) is same


def test_the_columns_are_at_right_angles_and_every_weight_hangs_on_one_number():
    _, theta, layers = subspaced(5)
    columns = []
    for n in range(5):
        theta.data.zero_()
        theta.data[n] = 1
        columns.append(torch.cat([layer.delta_weight().detach().flatten() for layer in layers]) / UNIT)
    p = torch.stack(columns, 1)
    assert (p.abs().sum(1) == 1).all()
    products = p.t() @ p
    assert torch.equal(products, products.diag().diag())
    assert (products.diag() > 0.8 * len(p) / 5).all()


def test_its_gradient_is_the_projection_of_the_weights_own():
    model, theta, layers = subspaced(4)
    logits(model).square().sum().backward()
    plain = tiny("bert")
    logits(plain).square().sum().backward()
    by_hand = torch.zeros(4)
    linear = [m for n, m in plain.named_modules() if type(m) is torch.nn.Linear and n != "classifier"]
    for layer, own in zip(layers, linear, strict=True):
        by_hand.index_add_(0, layer.index, UNIT * layer.sign * own.weight.grad.flatten())
    assert torch.allclose(theta.grad, by_hand, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("d", [0, 10**9])
def test_a_d_that_cannot_be_is_refused(d: int):
    with pytest.raises(BadValue, match="take 1 to that many"):
        put_into_subspace(tiny("bert"), d)


def test_points_are_trained_once_and_read_ever_after(recipe, tmp_path, monkeypatch):
    found = dimensions((50, 0), recipe(steps=3), tmp_path)
    assert [point.d for point in found] == [0, 50]
    assert found[0].metrics != found[1].metrics
    monkeypatch.setattr("lora_course.experiments.intrinsic.at_dimension", lambda *_: pytest.fail("trained again"))
    assert dimensions((0, 50), recipe(steps=3), tmp_path) == found


def test_the_intrinsic_dimension_is_the_first_to_reach_the_bar():
    points = [Point(d, {"accuracy": a}, 0.0) for d, a in ((0, 0.6), (10, 0.7), (100, 0.74), (1000, 0.8))]
    assert intrinsic_dimension(points, full=0.82) == 100
    assert intrinsic_dimension(points, full=0.82, share=0.99) is None

"""Subspaces and amplification against direct numpy, closed forms and Monte Carlo; updates against their layers."""

import numpy as np
import pytest

from lora_course.experiments import subspace
from lora_course.experiments.subspace import Update, above_chance, amplification, directions, phi, product_factors
from lora_lab import LoRA
from tests.conftest import lora_layers, randomise, tiny

RNG = np.random.default_rng(7)


def gaussian(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


@pytest.mark.parametrize(("i", "j"), [(2, 5), (4, 3)])
def test_phi_is_its_definition(i: int, j: int):
    a1, a2 = gaussian(4, 20), gaussian(9, 20)
    u1, u2 = np.linalg.svd(a1)[2].T[:, :i], np.linalg.svd(a2)[2].T[:, :j]
    values = np.linalg.svd(u1.T @ u2, compute_uv=False)
    p = min(i, j)
    found = phi(directions(a1)[:, :i], directions(a2)[:, :j])
    assert found == pytest.approx(np.linalg.norm(u1.T @ u2) ** 2 / p)
    assert found == pytest.approx(1 - (p - (values**2).sum()) / p)  # 1 - D^2 / p, and not (1 - D^2) / p


def test_chance_is_the_larger_rank_over_d():
    d, k1, k2 = 12, 3, 5
    other = subspace.random_directions(d, k2, seed=1)  # it is enough that one of the two is random
    drawn = [subspace.random_directions(d, k1, seed) for seed in range(100, 4100)]
    for i, j in ((1, 1), (1, k2), (k1, 1), (k1, k2)):
        assert abs(np.mean([above_chance(one[:, :i], other[:, :j]) for one in drawn])) < 0.01
    same = subspace.random_directions(384, 8)
    assert above_chance(same, same) == pytest.approx(1 - 8 / 384)


@pytest.mark.parametrize(("m", "r", "n"), [(15, 4, 11), (3, 5, 4)])
def test_a_product_has_the_factors_of_the_matrix_that_is_never_formed(m: int, r: int, n: int):
    b, a = gaussian(m, r), gaussian(r, n)
    (left, values, right), direct = product_factors(b, a, 0.5), np.linalg.svd(0.5 * b @ a, compute_uv=False)
    k = min(m, r, n)
    assert np.allclose(values[:k], direct[:k])
    assert np.allclose((left * values) @ right.T, 0.5 * b @ a)
    assert phi(right[:, :k], directions(b @ a)[:, :k]) == pytest.approx(1)


def test_amplification_is_its_definition():
    w, b, a = gaussian(9, 14), gaussian(9, 2), gaussian(2, 14)
    found = amplification(Update(w, *product_factors(b, a), a))
    u, _, vt = np.linalg.svd(b @ a)
    assert found["update"] == pytest.approx(np.linalg.norm(b @ a))
    assert found["in_update"] == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    assert found["factor"] == pytest.approx(found["update"] / found["in_update"])
    u, _, vt = np.linalg.svd(w)
    assert found["in_weight"] == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    drawn = [
        np.linalg.norm(subspace.random_directions(9, 2, n).T @ w @ subspace.random_directions(14, 2, n + 9999)) ** 2
        for n in range(3000)
    ]
    assert found["in_random"] == pytest.approx(np.sqrt(np.mean(drawn)), rel=0.03)
    assert [round(r * 61.95 / 12288, 2) for r in (4, 64)] == [0.02, 0.32]  # Table 7 prints 0.02 and 0.33


def test_an_adapter_s_updates_are_what_its_layers_add():
    model = tiny("bert")
    LoRA(rank=3, targets=("q", "v")).attach(model)
    randomise(model)
    found = subspace.updates_in(model)
    assert len(found) == 4
    for (name, update), layer in zip(found.items(), lora_layers(model), strict=True):
        assert name.endswith(("query", "value"))
        assert np.allclose((update.left * update.values) @ update.right.T, layer.delta_weight().detach(), atol=1e-5)
        assert np.allclose(update.weight, layer.frozen_weight().detach())
        assert update.a.shape == (3, 32)
        assert len(update.values) == 3

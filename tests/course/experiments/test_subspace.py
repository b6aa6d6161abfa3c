"""Subspaces and amplification against direct numpy, closed forms and Monte Carlo; updates against their layers."""

from __future__ import annotations

import numpy as np
import pytest

from lora_course.experiments.subspace import (
    amplification,
    directions,
    expected_phi,
    phi_grid,
    product_factors,
    random_directions,
    updates_in,
)
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
    found = phi_grid(directions(a1), directions(a2))[i - 1, j - 1]
    assert found == pytest.approx(np.linalg.norm(u1.T @ u2) ** 2 / p)
    assert found == pytest.approx(1 - (p - (values**2).sum()) / p)  # 1 - D^2 / p, and not (1 - D^2) / p


def test_chance_is_the_larger_rank_over_d():
    d, k1, k2 = 12, 3, 5
    other = random_directions(d, k2, seed=1)  # it is enough that one of the two is random
    drawn = np.array([phi_grid(random_directions(d, k1, seed), other) for seed in range(100, 4100)])
    assert np.allclose(drawn.mean(0), expected_phi(d, k1, k2), atol=0.01)
    assert expected_phi(384, 8, 64)[-1, -1] == pytest.approx(64 / 384)


@pytest.mark.parametrize(("m", "r", "n"), [(15, 4, 11), (3, 5, 4)])
def test_a_product_has_the_factors_of_the_matrix_that_is_never_formed(m: int, r: int, n: int):
    b, a = gaussian(m, r), gaussian(r, n)
    found, direct = product_factors(b, a, 0.5), np.linalg.svd(0.5 * b @ a, compute_uv=False)
    k = min(m, r, n)
    assert np.allclose(found.values[:k], direct[:k])
    assert np.allclose((found.left * found.values) @ found.right.T, 0.5 * b @ a)
    assert found.norm == pytest.approx(np.linalg.norm(0.5 * b @ a))
    assert phi_grid(found.right[:, :k], directions(b @ a)[:, :k])[-1, -1] == pytest.approx(1)


def test_amplification_is_its_definition():
    w, b, a = gaussian(9, 14), gaussian(9, 2), gaussian(2, 14)
    found = amplification(w, product_factors(b, a), 2)
    u, _, vt = np.linalg.svd(b @ a)
    assert found.update == pytest.approx(np.linalg.norm(b @ a))
    assert found.in_update == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    assert found.factor == pytest.approx(found.update / found.in_update)
    u, _, vt = np.linalg.svd(w)
    assert found.in_weight == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    drawn = [
        np.linalg.norm(random_directions(9, 2, n).T @ w @ random_directions(14, 2, n + 9999)) ** 2 for n in range(3000)
    ]
    assert found.in_random == pytest.approx(np.sqrt(np.mean(drawn)), rel=0.03)
    assert [round(r * 61.95 / 12288, 2) for r in (4, 64)] == [0.02, 0.32]  # Table 7 prints 0.02 and 0.33


def test_an_adapter_s_updates_are_what_its_layers_add():
    model = tiny("bert")
    LoRA(rank=3, targets=("q", "v")).attach(model)
    randomise(model)
    found = updates_in(model)
    assert len(found) == 4
    for (name, update), layer in zip(found.items(), lora_layers(model), strict=True):
        assert name.endswith(("query", "value"))
        factors = update.factors
        assert np.allclose((factors.left * factors.values) @ factors.right.T, layer.delta_weight().detach(), atol=1e-5)
        assert np.allclose(update.weight, layer.frozen_weight().detach())
        assert update.a.shape == (3, 32)
        assert len(factors.values) == 3

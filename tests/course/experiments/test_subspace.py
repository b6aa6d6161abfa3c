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
def test_phi_matches_its_definition(i, j):
    a1, a2 = gaussian(4, 20), gaussian(9, 20)
    u1, u2 = np.linalg.svd(a1)[2].T[:, :i], np.linalg.svd(a2)[2].T[:, :j]
    cosines, p = np.linalg.svd(u1.T @ u2, compute_uv=False), min(i, j)
    actual = phi(directions(a1)[:, :i], directions(a2)[:, :j])
    assert actual == pytest.approx(np.linalg.norm(u1.T @ u2) ** 2 / p)
    assert actual == pytest.approx(1 - (p - (cosines**2).sum()) / p)  # 1 - D^2 / p; the paper prints (1 - D^2) / p


def test_chance_level_is_the_larger_rank_over_d():
    d, k1, k2 = 12, 3, 5
    fixed = subspace.random_directions(d, k2, seed=1)  # only one of the two needs to be random
    drawn = [subspace.random_directions(d, k1, seed) for seed in range(100, 4100)]
    for i, j in ((1, 1), (1, k2), (k1, 1), (k1, k2)):
        assert abs(np.mean([above_chance(basis[:, :i], fixed[:, :j]) for basis in drawn])) < 0.01
    basis = subspace.random_directions(384, 8)
    assert above_chance(basis, basis) == pytest.approx(1 - 8 / 384)


@pytest.mark.parametrize(("m", "r", "n"), [(15, 4, 11), (3, 5, 4)])
def test_product_factors_match_the_full_product(m, r, n):
    b, a, k = gaussian(m, r), gaussian(r, n), min(m, r, n)
    left, values, right = product_factors(b, a, 0.5)
    assert np.allclose(values[:k], np.linalg.svd(0.5 * b @ a, compute_uv=False)[:k])
    assert np.allclose((left * values) @ right.T, 0.5 * b @ a)
    assert phi(right[:, :k], directions(b @ a)[:, :k]) == pytest.approx(1)


def test_amplification_matches_its_definition():
    w, b, a = gaussian(9, 14), gaussian(9, 2), gaussian(2, 14)
    actual = amplification(Update(w, *product_factors(b, a), a))
    u, _, vt = np.linalg.svd(b @ a)
    assert actual["update"] == pytest.approx(np.linalg.norm(b @ a))
    assert actual["in_update"] == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    assert actual["factor"] == pytest.approx(actual["update"] / actual["in_update"])
    u, _, vt = np.linalg.svd(w)
    assert actual["in_weight"] == pytest.approx(np.linalg.norm(u[:, :2].T @ w @ vt[:2].T))
    random = [(subspace.random_directions(9, 2, n), subspace.random_directions(14, 2, n + 9999)) for n in range(3000)]
    mean_square = np.mean([np.linalg.norm(left.T @ w @ right) ** 2 for left, right in random])
    assert actual["in_random"] == pytest.approx(np.sqrt(mean_square), rel=0.03)


def test_updates_match_their_layers():
    model = tiny("bert")
    LoRA(rank=3, targets=("q", "v")).attach(model)
    randomise(model)
    updates = subspace.updates_in(model)
    assert len(updates) == 4
    for (name, update), layer in zip(updates.items(), lora_layers(model), strict=True):
        assert name.endswith(("query", "value"))
        assert np.allclose((update.left * update.values) @ update.right.T, layer.delta_weight().detach(), atol=1e-5)
        assert np.allclose(update.weight, layer.frozen_weight().detach())
        assert (update.a.shape, len(update.values)) == ((3, 32), 3)

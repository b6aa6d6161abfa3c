"""Subspaces, amplification and intruders against direct numpy, closed forms and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_course.experiments.subspace import (
    amplification,
    directions,
    expected_phi,
    factors,
    intruders,
    phi_grid,
    product_factors,
    random_directions,
    random_like,
    spread_of_phi,
)
from lora_lab.errors import BadValue

RNG = np.random.default_rng(7)


def gaussian(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


@pytest.mark.parametrize(("i", "j"), [(1, 1), (2, 5), (4, 3), (4, 9)])
def test_phi_is_its_definition(i: int, j: int):
    a1, a2 = gaussian(4, 20), gaussian(9, 20)
    u1, u2 = np.linalg.svd(a1)[2].T[:, :i], np.linalg.svd(a2)[2].T[:, :j]
    values = np.linalg.svd(u1.T @ u2, compute_uv=False)
    p = min(i, j)
    found = phi_grid(directions(a1), directions(a2))[i - 1, j - 1]
    assert found == pytest.approx(np.linalg.norm(u1.T @ u2) ** 2 / p)
    assert found == pytest.approx(1 - (p - (values**2).sum()) / p)  # 1 - D^2 / p, and not (1 - D^2) / p


def test_of_two_equal_sizes_phi_is_one_minus_the_projection_distance():
    u1, u2 = directions(gaussian(3, 12)), directions(gaussian(3, 12))
    p1, p2 = u1 @ u1.T, u2 @ u2.T
    assert phi_grid(u1, u2)[-1, -1] == pytest.approx(1 - np.linalg.norm(p1 - p2) ** 2 / 2 / 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(6, 12), st.integers(0, 2**31))
def test_phi_lies_between_0_and_1_and_does_not_mind_the_order(r1: int, r2: int, d: int, seed: int):
    rng = np.random.default_rng(seed)
    u1, u2 = (directions(rng.standard_normal((r, d))) for r in (r1, r2))
    grid = phi_grid(u1, u2)
    assert grid.shape == (r1, r2)
    assert grid.min() >= 0
    assert grid.max() <= 1 + 1e-12
    assert np.allclose(grid, phi_grid(u2, u1).T)
    assert np.allclose(np.diag(phi_grid(u1, u1)), 1)


def test_chance_is_max_over_d_and_its_spread_is_the_closed_form():
    d, k1, k2 = 12, 3, 5
    other = random_directions(d, k2, seed=1)  # one of the two being random is enough
    drawn = np.array([phi_grid(random_directions(d, k1, seed), other) for seed in range(100, 4100)])
    assert np.allclose(drawn.mean(0), expected_phi(d, k1, k2), atol=0.01)
    assert np.allclose(drawn.std(0), spread_of_phi(d, k1, k2), rtol=0.06)
    assert expected_phi(384, 8, 64)[-1, -1] == pytest.approx(64 / 384)
    assert spread_of_phi(4, 4, 4)[-1, -1] == 0  # the whole space always holds the whole space


def test_a_product_has_the_factors_of_the_matrix_that_is_never_formed():
    b, a = gaussian(15, 4), gaussian(4, 11)
    found, direct = product_factors(b, a, 0.5), np.linalg.svd(0.5 * b @ a, compute_uv=False)
    assert np.allclose(found.values, direct[:4])
    assert np.allclose(found.cut(4), 0.5 * b @ a)
    assert np.allclose(found.right.T @ found.right, np.eye(4))
    assert found.norm == pytest.approx(np.linalg.norm(0.5 * b @ a))
    whole = factors(torch.tensor(b @ a))
    assert np.allclose(phi_grid(found.right, whole.right[:, :4]).diagonal(), 1)  # the row space of B A, in order
    assert phi_grid(found.right, directions(a))[-1, -1] == pytest.approx(1)  # which is that of A, in another order


def test_a_product_of_a_rank_above_its_sides():
    b, a = gaussian(3, 5), gaussian(5, 4)
    assert np.allclose(product_factors(b, a).cut(9), b @ a)


def test_ranks_of_a_spectrum():
    flat, one = factors(3 * np.eye(6)), factors(np.outer(gaussian(5), gaussian(4)))
    assert flat.stable_rank == pytest.approx(6)
    assert flat.effective_rank == pytest.approx(6)
    assert one.stable_rank == pytest.approx(1)
    assert one.effective_rank == pytest.approx(1)
    assert (factors(np.zeros((3, 3))).stable_rank, factors(np.zeros((3, 3))).effective_rank) == (0, 0)


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


def test_the_random_column_of_table_7_follows_from_the_norm_of_w():
    assert [round(r * 61.95 / 12288, 2) for r in (4, 64)] == [0.02, 0.32]  # printed: 0.02 and 0.33
    w = gaussian(6, 6)
    assert amplification(61.95 * w / np.linalg.norm(w), factors(w), 4).in_random == pytest.approx(4 * 61.95 / 6)


def test_an_update_along_w_s_own_direction_brings_no_intruder_and_a_new_one_does():
    basis, values = random_directions(12, 12), np.linspace(12, 1, 12)
    w = basis * values @ basis.T
    along = 3 * np.outer(basis[:, 1], basis[:, 1])
    assert np.allclose(intruders(w, along, top=4).cosines, 1)
    new = np.ones(12) / np.sqrt(12) @ basis.T  # as far from every one of W's directions as can be
    found = intruders(w, 100 * np.outer(new, new), top=3)
    assert found.cosines[0] == pytest.approx(12**-0.5, abs=0.05)
    assert found.count >= 1
    tuned = np.linalg.svd(w + 100 * np.outer(new, new))[0][:, :3]
    assert np.allclose(found.cosines, np.abs(np.linalg.svd(w)[0].T @ tuned).max(0))


def test_a_random_update_has_the_norm_and_no_aim():
    update = product_factors(gaussian(40, 2), gaussian(2, 30)).cut(2)
    noise = random_like(update)
    assert np.linalg.norm(noise) == pytest.approx(np.linalg.norm(update))
    assert factors(noise).stable_rank > 5 > 2 >= factors(update).stable_rank


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: phi_grid(gaussian(4, 1), gaussian(5, 1)), "different spaces"),
        (lambda: product_factors(gaussian(4, 3), gaussian(2, 4)), "do not fit"),
        (lambda: factors(gaussian(4)), "a matrix needs two dimensions"),
        (lambda: amplification(gaussian(4, 4), factors(gaussian(4, 4)), 5), "1 to 4"),
        (lambda: intruders(gaussian(4, 4), gaussian(4, 3)), "different shapes"),
        (lambda: intruders(gaussian(4, 4), gaussian(4, 4), top=5), "top must be"),
    ],
)
def test_what_cannot_be_is_said(call, why: str):
    with pytest.raises(BadValue, match=why):
        call()

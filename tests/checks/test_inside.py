"""The checks of lesson 13 pass the right answers, say what is wrong with others, and wait for unsolved ones."""

from __future__ import annotations

import numpy as np
import pytest

from lora_lab import checks
from lora_lab.experiments.microscope import Seen, Sentences, Views
from lora_lab.experiments.subspace import expected_phi, phi_grid


@pytest.fixture
def views() -> Views:
    """100 sentences: 50 right at rank 0, 80 at 1, 84 at 2, 86 at 8."""
    labels = np.ones(100, int)
    right = {0: 50, 1: 80, 2: 84, 8: 86}
    seen = {rank: Seen(rank, rank / 8, (np.arange(100) < n).astype(int)) for rank, n in right.items()}
    return Views(Sentences(("x",) * 100, labels, ("no", "yes")), {"full": (0, 1, 2, 8)}, {"full": seen})


@pytest.mark.parametrize(("rank", "passed", "why"), [
    (2, True, "25% of the energy"), (1, False, "loses 6.0 points"), (8, False, "a smaller one"),
    (3, False, "no rank 3"), (..., None, "drag the slider"),
])  # fmt: skip
def test_the_smallest_rank(views: Views, rank, passed, why: str):
    verdict = checks.check_smallest_rank(rank, views)
    assert verdict.passed is passed
    assert why in verdict.words


@pytest.mark.parametrize(("phi", "why"), [
    (lambda u, v: ((u.T @ v) ** 2).sum(), "not yet divided"),
    (lambda u, v: ((u.T @ v) ** 2).sum() / max(u.shape[1], v.shape[1]), "smaller"),
    (lambda u, v: np.linalg.norm(u.T @ v) / min(u.shape[1], v.shape[1]), "its square"),
    (lambda u, v: ((u.T @ v) ** 2).sum() / (u.shape[1] * v.shape[1]), "not by both"),
    (lambda u, v: ((u.T @ v) ** 2).sum() / len(u), "not of rows"),
    (lambda u, v: (u.T @ v).sum() / min(u.shape[1], v.shape[1]), "can be negative"),
    (lambda u, v: (u.T @ v) ** 2, "one number"),
    (lambda u, v: u @ v, "stops with"),
    (lambda u, v: 5.0, "squared cosine"),
])  # fmt: skip
def test_wrong_phis_hear_why(phi, why: str):
    verdict = checks.check_phi(phi)
    assert verdict.passed is False
    assert why in verdict.words


def test_the_right_phi_is_the_lab_s():
    assert checks.check_phi(lambda u, v: phi_grid(u, v)[-1, -1]).passed is True
    assert checks.check_phi(lambda u, v: ((u.T @ v) ** 2).sum() / min(u.shape[1], v.shape[1])).passed is True


def test_chance_and_amplification():
    assert checks.check_chance(expected_phi(384, 8, 64)[-1, -1]).passed is True
    assert checks.check_chance(0.167).passed is True
    assert "one direction and one" in checks.check_chance(1 / 384).words
    assert checks.check_amplification(6.91 / 0.32, 6.91 / (4 * 61.95 / 12288)).passed is True
    assert "other way round" in checks.check_amplification(0.0463, 1).words
    assert "by chance" in checks.check_amplification(21.6, 0.02).words


@pytest.mark.parametrize(("answer", "passed"), [("a", True), ("A.", True), ("b", False), ("e", False), (..., None)])
def test_what_is_not_supported(answer, passed):
    assert checks.check_what_is_shown(answer).passed is passed


def test_unsolved_is_not_yet():
    assert checks.check_phi(lambda u, v: ...).passed is None
    assert checks.check_chance(...).passed is None
    assert checks.check_amplification(..., ...).passed is None

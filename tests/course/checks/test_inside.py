"""The checks of lesson 13: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

import numpy as np

from lora_course import checks
from lora_course.experiments.microscope import Seen, Sentences, Views
from lora_course.experiments.subspace import expected_phi, phi_grid


def views() -> Views:
    """100 sentences: 50 right at rank 0, 80 at 1, 84 at 2, 86 at 8."""
    labels = np.ones(100, int)
    right = {0: 50, 1: 80, 2: 84, 8: 86}
    seen = {rank: Seen(rank, rank / 8, (np.arange(100) < n).astype(int)) for rank, n in right.items()}
    return Views(Sentences(("x",) * 100, labels, ("no", "yes")), {"full": (0, 1, 2, 8)}, {"full": seen})


VIEWS, BY_CHANCE = views(), 6.91 / (4 * 61.95 / 12288)
RIGHT = {
    "smallest_rank": (2, VIEWS),
    "phi": (lambda u, v: ((u.T @ v) ** 2).sum() / min(u.shape[1], v.shape[1]),),
    "chance": (1 / 6,),
    "amplification": (6.91 / 0.32, BY_CHANCE),
    "what_is_shown": ("a",),
}
WRONG = [
    ("smallest_rank", (1, VIEWS), "loses 6.0 points"),
    ("smallest_rank", (8, VIEWS), "a smaller one"),
    ("smallest_rank", (3, VIEWS), "no rank 3"),
    ("smallest_rank", ([2], VIEWS), "no rank [2]"),
    ("phi", (lambda u, v: ((u.T @ v) ** 2).sum(),), "not yet divided"),
    ("phi", (lambda u, v: ((u.T @ v) ** 2).sum() / max(u.shape[1], v.shape[1]),), "smaller"),
    ("phi", (lambda u, v: np.linalg.norm(u.T @ v) / min(u.shape[1], v.shape[1]),), "its square"),
    ("phi", (lambda u, v: ((u.T @ v) ** 2).sum() / (u.shape[1] * v.shape[1]),), "not by both"),
    ("phi", (lambda u, v: ((u.T @ v) ** 2).sum() / len(u),), "not of rows"),
    ("phi", (lambda u, v: (u.T @ v).sum() / min(u.shape[1], v.shape[1]),), "can be negative"),
    ("phi", (lambda u, v: (u.T @ v) ** 2,), "one number"),
    ("phi", (lambda u, v: u @ v,), "stops with"),
    ("phi", (lambda u, v: 5.0,), "squared cosine"),
    ("chance", (1 / 384,), "one direction and one"),
    ("chance", (0,), "hardly ever at right angles"),
    ("amplification", (0.0463, 1), "other way round"),
    ("amplification", (21.6, 0.02), "by chance: that is what W has in random directions"),
    ("what_is_shown", ("b",), "all but flat"),
    ("what_is_shown", ("e",), "one of a, b, c, d"),
]


def test_the_smallest_rank_keeps_accuracy_and_not_energy():
    assert "25% of the energy" in checks.check_smallest_rank(2, VIEWS).words


def test_the_right_answers_are_the_labs():
    assert checks.check_phi(lambda u, v: phi_grid(u, v)[-1, -1]).passed is True
    assert checks.check_chance(expected_phi(384, 8, 64)[-1, -1]).passed is True
    assert checks.check_chance(0.167).passed is True

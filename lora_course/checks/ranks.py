"""Exercises for lesson 10 (low rank): the energy of the first r pieces, and the rank that unrelated facts need."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from lora_course.checks.verdict import Function, Number, Verdict, exercise

WIDTH = 128  # of a key and of a value
ENOUGH = 0.95  # of the facts
MOST = 256  # facts


def _share(s: Any, r: int) -> float:
    return float((s[:r] ** 2).sum() / (s**2).sum())


ENERGY = Function(
    cases=[(np.array([3.0, 2.0, 1.0]), 1), (np.array([5.0, 4.0, 2.0, 1.0]), 3), (np.array([2.0, 2.0]), 2)],
    right=_share,
    why="the sum of the first r squares over the sum of all squares: for 5, 4, 2, 1 and r = 2, 41 / 46 = 0.89",
    near={
        "those are sums of s: energy is the sum of s squared": lambda s, r: s[:r].sum() / s.sum(),
        "that is the energy itself: divide by the sum of all squares": lambda s, r: (s[:r] ** 2).sum(),
        "that is what is lost: take the first r, s[:r], not those after them": lambda s, r: 1 - _share(s, r),
        "that is the energy of the r-th value alone: sum the first r": lambda s, r: s[r - 1] ** 2 / (s**2).sum(),
        "those are r + 1 values: s[:r] already ends with the r-th": lambda s, r: _share(s, r + 1),
        "that is the square root: don't take the root of the energy": lambda s, r: _share(s, r) ** 0.5,
        "return a fraction between 0 and 1, not a percentage": lambda s, r: 100 * _share(s, r),
    },
    fallback="try s = [3, 2, 1] and r = 1 by hand: 9 / (9 + 4 + 1)",
    several="you return a list, one number for each r: return their sum",
)


@exercise
def check_energy(energy: Callable[[Any, int], float]) -> Verdict:
    """Lesson 10: check f(s, r), the fraction of the energy in the first r singular values."""
    return ENERGY.judge(energy)


def facts(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n random keys and the random value that each key must retrieve, both of shape (n, WIDTH)."""
    keys, values = np.random.default_rng(n).normal(size=(2, n, WIDTH))
    return keys, values / np.linalg.norm(values, axis=1, keepdims=True)


@cache
def right_at_each_rank(n: int) -> list[float]:
    """Return the fraction of keys that find their value with 0, 1, ... rank-one pieces of the matrix values^T keys."""
    keys, values = facts(n)
    u, s, vt = np.linalg.svd(values.T @ keys)
    scores = np.cumsum((keys @ vt.T * s).T[:, :, None] * (u.T @ values.T)[:, None, :], axis=0)  # (rank, key, value)
    return [0.0, *(scores.argmax(2) == np.arange(n)).mean(1).tolist()]


@exercise
def check_facts(answer: int | None, n: int = 64) -> Verdict:
    """Lesson 10: check the lowest rank at which 95% of n random facts are right."""
    if n not in range(WIDTH // 2, MOST + 1):
        return Verdict(False, f"the lesson draws {WIDTH // 2} to {MOST} facts, not {n!r}")
    right = right_at_each_rank(n)
    rank = next(r for r, share in enumerate(right) if share >= ENOUGH)
    keys, values = facts(n)
    energy = np.cumsum(np.linalg.svd(values.T @ keys, compute_uv=False) ** 2)
    misconceptions = {
        **{r: f"with {r} pieces, only {100 * right[r]:.1f}% of the facts are right" for r in range(1, rank)},
        **dict.fromkeys(range(rank + 1, n), "that is enough, but so is a smaller rank"),
        min(n, WIDTH): "that many pieces reproduce every value exactly: right answers need fewer",
        int(np.argmax(energy >= 0.9 * energy[-1])) + 1: "that rank has 90% of the energy: count right answers instead",
    }
    shares = [f"{100 * right[r]:.1f}%" for r in (rank, rank - 1)]
    why = f"with {rank} pieces, {shares[0]} of {n} facts are right; with {rank - 1}, only {shares[1]}"
    return Number(rank, misconceptions, why, hint="replace the ... with a rank").judge(answer)

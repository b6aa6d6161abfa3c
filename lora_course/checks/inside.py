"""Exercises of old lesson 13, what is inside dW."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from lora_course.checks.verdict import Verdict, choice, function, not_yet, number, unsolved
from lora_course.experiments.microscope import Views

SHOWN = {
    "a": "its rank is full and its energy is spread over a hundred directions. That few of them do the *work* of this "
    "task is another statement",
    "b": "that is supported: the curve of accuracy is all but flat after the first few ranks",
    "c": "that is supported: equal norm, the same head, and hardly a sentence is answered better than at rank 0",
    "d": "that is supported: rank 0 is the base with the trained head, and it is near a coin's 50 %",
}


def check_smallest_rank(rank: int | None, views: Views) -> Verdict:
    """Old lesson 13: the smallest rank on the slider that cuts full fine-tuning's update and loses 3 points at most."""
    if unsolved(rank):
        return not_yet("drag the slider of the panel, then put the rank in place of ...")
    seen, whole = views.seen.get("full", {}), views.whole("full")
    if whole is None or not isinstance(rank, Real) or rank not in seen:
        ranks = ", ".join(map(str, sorted(seen)))
        return Verdict(False, f"the slider has no rank {rank} of this update that was looked at; it has {ranks}")
    lost = {r: 100 * (views.accuracy(whole) - views.accuracy(one)) for r, one in sorted(seen.items())}
    enough = 3 + 1e-9
    if lost[rank] > enough:
        return Verdict(False, f"at rank {rank} it loses {lost[rank]:.1f} points, more than 3: go higher")
    words = f"loses {lost[rank]:.1f} points"
    if rank != next(r for r, points in lost.items() if points <= enough):
        return Verdict(False, f"rank {rank} {words}, which is little enough, but a smaller one does as well")
    return Verdict(True, f"it {words}, and keeps {seen[rank].energy:.0%} of the energy: these are two things")


def check_phi(phi: Callable[[Any, Any], Any]) -> Verdict:
    """Old lesson 13: phi of two sets of orthonormal columns, (d, i) and (d, j), as a function of the two."""
    cases = [_columns(i, j, seed) for seed, (i, j) in enumerate(((1, 1), (2, 5), (4, 3)))]

    def added(u: np.ndarray, v: np.ndarray) -> float:
        return float(((u.T @ v) ** 2).sum())

    def smaller(u: np.ndarray, v: np.ndarray) -> int:
        return min(u.shape[1], v.shape[1])

    near: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "that is not yet divided by the smaller number of directions": added,
        "divide by the *smaller* of i and j: then 1 means that one lies in the other": lambda u, v: (
            added(u, v) / max(u.shape[1], v.shape[1])
        ),
        "that is the norm: phi takes its square": lambda u, v: added(u, v) ** 0.5 / smaller(u, v),
        "divide by one of the two numbers, not by both": lambda u, v: added(u, v) / (u.shape[1] * v.shape[1]),
        "divide by the number of columns, not of rows": lambda u, v: added(u, v) / len(u),
        "cosines can be negative: square them before they are added": lambda u, v: (
            float((u.T @ v).sum()) / smaller(u, v)
        ),
    }
    why = "the sum of all squared cosines over the smaller number of directions: 0 to 1"
    wrong = "for one direction each it is the squared cosine between them; try that first"
    several = "one number is wanted: add up the squares of all entries of U1^T U2"
    return function(phi, cases, lambda u, v: added(u, v) / smaller(u, v), why, near, wrong, several=several)


def check_chance(chance: float | None) -> Verdict:
    """Old lesson 13: phi of 8 directions and 64 random ones, in a space of 384."""
    hints = {
        8 / 384: "that is what *one* direction finds among 8: here 8 directions look among 64",
        64 / 12288: "that is GPT-3's, with d = 12,288; MiniLM's vectors have 384 numbers",
        8 * 64 / 384: "that is the sum of the squares: phi divides it by the smaller number, 8",
        1 / 384: "that is one direction and one: among 64, each finds 64 times as much",
        8 / 64: "the space matters: its 384 dimensions are what the 64 are a part of",
        0.0: "two random subspaces are hardly ever at right angles: a vector has a part in each of them",
    }
    why = "a direction has 64/384 of itself among 64 random ones, and phi is the mean over the 8: one sixth, by chance"
    return number(chance, 64 / 384, hints, why, 2e-3)


def check_amplification(factor: float | None, chance: float | None) -> Verdict:
    """Old lesson 13: Table 7 of the paper at r = 4: the amplification, and what random directions would give."""
    if unsolved(factor) or unsolved(chance):
        return not_yet("put two numbers in place of ...")
    near = {
        0.32 / 6.91: "the other way round: the size of dW over what W has in its directions",
        6.91 / 21.67: "21.67 is what W has in *its own* directions; in dW's it has 0.32",
        6.91 / 61.95: "61.95 is all of W; what it has in dW's directions is 0.32",
    }
    first = number(factor, 6.91 / 0.32, near, "", 0.01)
    if not first.passed:
        return Verdict(False, f"amplification: {first.words}")
    held = 4 * 61.95 / 12288
    near = {held: "that is what W has in random directions: divide 6.91 by it", 4 * 6.91 / held: "r is 4, on each side"}
    second = number(chance, 6.91 / held, near, "", 0.05)
    if not second.passed:
        return Verdict(False, f"by chance: {second.words}")
    return Verdict(True, "21.6 times, by chance 342: W had little in dW's directions, yet 16 times more than by chance")


def check_what_is_shown(answer: str | None) -> Verdict:
    """Old lesson 13: which of four sentences the microscope does not support."""
    return choice(answer, "a", SHOWN)


def _columns(i: int, j: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of orthonormal columns of nine numbers."""
    draw = np.random.default_rng(seed)
    return np.linalg.qr(draw.standard_normal((9, i)))[0], np.linalg.qr(draw.standard_normal((9, j)))[0]

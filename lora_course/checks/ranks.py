"""Exercises of lesson 01, why low rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_course.checks.verdict import Verdict, choice, function, not_yet, unsolved


def check_energy(energy: Callable[[Any, int], float]) -> Verdict:
    """Lesson 01: the share of the energy in the first r singular values, as a function of (s, r)."""
    cases = [(np.array([3.0, 2.0, 1.0]), 1), (np.array([5.0, 4.0, 2.0, 1.0]), 3), (np.array([2.0, 2.0]), 2)]
    why = "squares of the first r over squares of all: of 3, 2, 1 the first holds 9 / 14"
    unsquared = "that is the sum of the first r values: square each, and divide by the sum of all squares"
    near: dict[str, Callable[[np.ndarray, int], float]] = {
        "those are sums of s: energy is the sum of s squared": lambda s, r: s[:r].sum() / s.sum(),
        "that is the energy itself: divide by the sum of all squares": lambda s, r: (s[:r] ** 2).sum(),
        "that is what is lost: take the first r, s[:r], not those after them": lambda s, r: 1 - _share(s, r),
        "that is the share of the r-th alone: sum the first r": lambda s, r: s[r - 1] ** 2 / (s**2).sum(),
        "those are r + 1 of them: s[:r] already ends after the r-th": lambda s, r: _share(s, r + 1),
        "those are r - 1 of them: s[:r] already ends after the r-th": lambda s, r: _share(s, r - 1),
        unsquared: lambda s, r: s[:r].sum(),
        "that is its square root: of the energy no root is taken": lambda s, r: _share(s, r) ** 0.5,
        "a share lies between 0 and 1, not in per cent": lambda s, r: 100 * _share(s, r),
    }
    wrong = "try s = [3, 2, 1] and r = 1 by hand: 9 / (9 + 4 + 1)"
    return function(energy, cases, _share, why, near, wrong, several="you return a list of shares: add them up")


def _share(s: np.ndarray, r: int) -> float:
    return float((s[:r] ** 2).sum() / (s**2).sum())


def check_update_shows(answer: str | None) -> Verdict:
    """Lesson 01: what the singular values of a trained rank-8 update show, and what they do not."""
    replies = {
        "a": "B A of rank 8 can have no ninth singular value, whatever the task needs: that was built in",
        "b": "at most 8 is built in; that they are uneven was found out, in this run, on this task, but for q of "
        "layer 5, whose one piece the architecture makes: only [CLS] reaches the head",
        "c": "W was not touched, and it is far from low rank: look at the table of the 24 weights",
    }
    return choice(answer, "b", replies)


def check_factor_shapes(a: Any, b: Any) -> Verdict:
    """Lesson 01: shapes of A and B of rank 8 beside a W of 1536 x 384 (out x in), so that B A has W's shape."""
    if unsolved(a) or unsolved(b):
        return not_yet("put a pair of numbers in place of each ...")
    try:
        (a_rows, a_columns), (b_rows, b_columns) = a, b
        given = (int(a_rows), int(a_columns)), (int(b_rows), int(b_columns))
    except (TypeError, ValueError):
        return Verdict(False, "write each shape as a pair of numbers, for example (2, 3)")
    if given == ((8, 384), (1536, 8)):
        return Verdict(True, "A goes down, 384 -> 8; B goes up, 8 -> 1536; B A is 1536 x 384, like W")
    near = {
        ((384, 8), (8, 1536)): "with these A B is in x out: the transpose of W. In B A, B is on the left: rows like W",
        (
            (1536, 8),
            (8, 384),
        ): "with these it is A B that has W's shape. A is the one that x meets first: its columns are 384",
        ((8, 1536), (384, 8)): "inputs and outputs are the other way round: x has 384 numbers, y has 1536",
        ((384, 8), (1536, 8)): "B A cannot be formed: B's 8 columns meet A's 384 rows. A has r rows",
        ((8, 384), (8, 1536)): "B A cannot be formed: B's 1536 columns meet A's 8 rows. B has r columns",
    }
    return Verdict(False, near.get(given, "B A must be 1536 x 384, with only r = 8 numbers between them"))


def check_training_bytes(total: Callable[[int, int], float]) -> Verdict:
    """Lesson 01: bytes of weights, gradients and Adam's state in fp32, as a function of (parameters, trained)."""
    cases = [(1000, 1000), (22_000_000, 74_000), (10, 0)]
    why = "4 bytes for each parameter, and 4 + 8 more for each that trains: 16 against 4"
    near: dict[str, Callable[[int, int], float]] = {
        "every parameter is counted at 16 bytes, but a frozen one has neither gradient nor state": lambda p, t: 16 * p,
        "the frozen weights are missing: they must be there to compute with": lambda p, t: 16 * t,
        "4 bytes for each trained parameter are missing: its gradient, or one of Adam's two numbers": lambda p, t: (
            4 * p + 8 * t
        ),
        "Adam's state is missing: two numbers of 4 bytes for each that trains": lambda p, t: 4 * p + 4 * t,
        "the trained weights are among the parameters: they are counted twice": lambda p, t: 4 * p + 16 * t,
        "those are numbers; in fp32 each has 4 bytes": lambda p, t: p + 3 * t,
    }
    wrong = "a parameter has 4 bytes; one that trains has 4 for its gradient and 8 for Adam's state on top"
    return function(total, cases, lambda p, t: 4 * p + 12 * t, why, near, wrong)

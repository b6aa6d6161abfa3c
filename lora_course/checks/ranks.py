"""Exercises for lesson 10 (low rank): the energy of the first r pieces, and the pieces of Adam's first step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_course.checks.verdict import Function, Number, Verdict, exercise
from lora_lab.experiments.low_rank import rank_for_energy, shuffled, spectrum


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


@exercise
def check_first_step(answer: int | None, gradient: np.ndarray) -> Verdict:
    """Lesson 10: check how many pieces hold 90% of the energy of Adam's first step (the gradient's signs)."""
    step = np.sign(gradient)
    matrices = gradient, step, shuffled(gradient), shuffled(step)
    needed, right, noise, mixed = (rank_for_energy(spectrum(matrix), 0.9) for matrix in matrices)
    misconceptions = {
        needed: "that is the gradient itself: in Adam's first step, only the signs are left",
        min(gradient.shape): "that many pieces hold all of the energy: count those that hold 90%",
        mixed: "that is for shuffled signs: the original signs keep some of the pattern",
        noise: "that is for the shuffled gradient: don't shuffle it, take its signs",
        1: "one piece would mean that all rows of the step have the same signs, or the opposite ones: use spectrum",
    }
    why = f"the gradient needs {needed}, the step {right}, and shuffled signs {mixed}"
    return Number(right, misconceptions, why, hint="replace the ... with a number of pieces").judge(answer)

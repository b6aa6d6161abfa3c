"""Exercises of lesson 06, rate, rank and alpha."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from lora_course.checks.verdict import Verdict, function, not_yet, number, unsolved


def check_chosen_rate(rate: float | None, frame: pd.DataFrame) -> Verdict:
    """Lesson 06: the rate to use, from a sweep over rates and seeds: the highest mean validation accuracy."""
    if unsolved(rate):
        return not_yet("put a rate in place of ..., one of those in the table")
    rates = sorted(frame["lr"].unique())
    if not isinstance(rate, Real):
        return Verdict(False, f"a rate is wanted, a number, not {type(rate).__name__}")
    chosen = next((r for r in rates if math.isclose(r, float(rate))), None)
    if chosen is None:
        return Verdict(False, f"no run had the rate {float(rate):g}; there are {', '.join(f'{r:g}' for r in rates)}")
    validation = frame.groupby("lr")["validation_accuracy"].mean()
    if not math.isclose(validation[chosen], validation.max()):
        return Verdict(False, _why_not(chosen, frame, validation))
    edge = chosen in (rates[0], rates[-1])
    beyond = "; it is the last of its row: before you use it, try one beyond" if edge else ""
    return Verdict(True, f"{chosen:g}: {validation.max():.1%} of the validation sentences, mean over seeds{beyond}")


def _why_not(chosen: float, frame: pd.DataFrame, validation: pd.Series) -> str:
    """What a rate that does not validate best was probably chosen by."""
    test = frame.groupby("lr")["accuracy"].mean()
    if math.isclose(test[chosen], test.max()):
        return "best on test, yes; but what chooses on test has no unseen rows left to be judged by: use validation"
    if math.isclose(frame["lr"].iloc[int(frame["validation_accuracy"].argmax())], chosen):
        return "it has the best single run, which may be its seed's luck: compare means over the seeds"
    if math.isclose(validation[chosen], validation.min()):
        return "that one validates worst: the highest accuracy is wanted"
    return "another rate has a higher mean validation accuracy: look along that column"


def check_first_step(moved: float | None) -> Verdict:
    """Lesson 06: how far AdamW's first step at rate 2e-3 moves a number of B whose gradient is 3."""
    hints = {
        2e-3 * 3: "that is plain gradient descent, rate x gradient; Adam divides by the root of its second moment",
        2e-3 / 3: "divide once: the first moment is the gradient, 3, and the root of the second is 3 as well",
        2e-3 * 9: "the squared gradient stands below the line, under a root",
        2e-3 / 9: "under the root: of 9 it is 3",
        2e-3 * 0.1: "the first moment is a tenth of the gradient, but the correction makes it whole again",
        3: "the two threes cancel; what is left is the rate",
        1: "that is the ratio of the moments; the rate times it is the step",
    }
    far = abs(moved) if isinstance(moved, Real) else moved  # down or up: asked is how far
    return number(far, 2e-3, hints, "2e-3: Adam's first step is as long as the rate, whatever the gradient", 5e-3)


def check_same_rate(rate: float | None) -> Verdict:
    """Lesson 06: the rate at alpha 64 that makes the same first step as 2e-3 at alpha 16, both at rank 8."""
    hints = {
        2e-3 * 4: "the other way: alpha is four times as large, so the same step takes a smaller rate",
        2e-3: "then the first step would be four times as long: alpha stands before B A",
        2e-3 / 2: "not the root: the step goes with alpha itself",
        2e-3 / 16: "not the square: the step goes with alpha itself",
        2e-3 / 32: "the rank is the same in both, and so cancels",
        2e-3 * 2: "the rank is the same in both, and so cancels",
    }
    why = "16 x 2e-3 = 64 x 5e-4: it is the product that says how far it goes"
    return number(rate, 5e-4, hints, why, 5e-3, hint="put a rate in place of ...")


def check_best_error(error: Callable[[Any, int], float]) -> Verdict:
    """Lesson 06: the least relative error of a rank-r matrix against one with singular values s, as f(s, r)."""
    cases = [(np.array([3.0, 2.0, 1.0]), 1), (np.array([5.0, 4.0, 2.0, 1.0]), 2), (np.array([2.0, 2.0, 2.0]), 2)]
    why = "the tail, as a length: of s = [3, 2, 1] rank 1 leaves the root of 5 / 14, and rank 3 nothing"
    near: dict[str, Callable[[np.ndarray, int], float]] = {
        "that is a share of the energy: a length is its square root": lambda s, r: _tail(s, r) ** 2,
        "that is what is kept: left out are those after the r-th, s[r:]": lambda s, r: (1 - _tail(s, r) ** 2) ** 0.5,
        "that is the energy kept; asked is the length of what is left out": lambda s, r: 1 - _tail(s, r) ** 2,
        "those after the r-th are s[r:], the next one included": lambda s, r: _tail(s, r + 1),
        "the r-th is kept: s[r:] begins after it": lambda s, r: _tail(s, r - 1),
        "that is the error itself: divide by the length of the whole": lambda s, r: _tail(s, r) * (s**2).sum() ** 0.5,
        "a length is the root of a sum of squares: square each s": lambda s, r: s[r:].sum() / s.sum(),
        "square each s before the sum": lambda s, r: (s[r:].sum() / s.sum()) ** 0.5,
        "that is the largest value left out; all of them count": lambda s, r: s[r] / s[0],
        "a share lies between 0 and 1, not in per cent": lambda s, r: 100 * _tail(s, r),
    }
    wrong = "try s = [3, 2, 1] and r = 1 by hand: the square root of (4 + 1) / (9 + 4 + 1)"
    return function(error, cases, _tail, why, near, wrong, several="you return a list: add up what is left out")


def _tail(s: np.ndarray, r: int) -> float:
    return float(((s[r:] ** 2).sum() / (s**2).sum()) ** 0.5)


def check_sqrt_alpha(alpha: float | None) -> Verdict:
    """Lesson 06: alpha at rank 64 by the root rule that has alpha 16 at rank 8."""
    right = 16 * math.sqrt(8)
    hints = {
        128: "that keeps alpha / r, the rule 2r; here alpha grows with the root of r",
        64: "that is the rule alpha = r; here alpha grows with the root of r",
        16: "that is alpha held fixed; here it grows with the root of r",
        16 / math.sqrt(8): "that is the constant c; alpha is c times the root of 64",
        right / 64: "that is alpha / r, the scaling: multiply by r",
    }
    return number(alpha, right, hints, f"{right:.1f}: a rank 8 times as large, and alpha times the root of 8", 5e-3)

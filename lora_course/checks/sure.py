"""Exercises for lesson 02 (how sure are you?): the half-width of an accuracy's interval, and a report on two models."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lora_course.checks.verdict import Choice, Function, Number, Right, Verdict, attempt, exercise, parts, texts

WORDS = ("better", "worse", "undecided")
HINTS = texts("hints")["report"]


def _error(p: float, n: int) -> float:
    return math.sqrt(p * (1 - p) / n)


HALF_WIDTH = Function(
    [(0.77, 2000), (0.5, 100), (0.9, 872)],
    lambda p, n: 1.96 * _error(p, n),
    f"at 80%, ±{196 * _error(0.8, 2000):.1f} points on 2,000 sentences, and ±{196 * _error(0.8, 100):.0f} on 100",
    {
        "that is one standard error: 95 of 100 tests fall within 1.96 standard errors": _error,
        "that uses 2: the question says 1.96": lambda p, n: 2 * _error(p, n),
        "that is the whole interval, from end to end; return half of it": lambda p, n: 2 * 1.96 * _error(p, n),
        "that is in points: p is a fraction, so give a fraction": lambda p, n: 196 * _error(p, n),
        "that is 1.96 times the variance: take its square root first": lambda p, n: 1.96 * _error(p, n) ** 2,
        "that is the spread of one sentence; the mean of n sentences varies less": lambda p, n: 1.96 * _error(p, 1),
        "the n belongs under the root: four times the rows halve the error": lambda p, n: 1.96 * _error(p, 1) / n,
        "that is right only at p = 0.5: at p = 0.9, the interval is narrower": lambda p, n: 1.96 * _error(0.5, n),
    },
    "by hand, p = 0.5 and n = 100 give 0.098",
)


@exercise
def check_half_width(half: Callable[[float, int], float]) -> Verdict:
    """Lesson 02: check f(p, n), the half-width of the 95% interval of an accuracy p on n rows, as a fraction."""
    return HALF_WIDTH.judge(half)


def half_width_or_ours(half: Callable[[float, int], float]) -> Any:
    """Return the student's function if it passes the check of exercise 1; otherwise, return the lab's."""
    return attempt(HALF_WIDTH.judge, half).yours_or_ours("half_width", half, HALF_WIDTH.right)


def report(table: Any) -> tuple[dict[str, Right], str, float]:
    """Return the right report on columns `a` and `b` of a table, its reply, and the fraction of rows that differ.

    Raises: ValueError for an invalid table; KeyError if a column is missing.
    """
    a, b = (np.asarray(table[name], dtype=float) for name in "ab")
    if not len(a) or not np.isin([a, b], (0, 1)).all():
        raise ValueError("there are other values, or no rows")
    n, share, gap, variance = len(a), float((a != b).mean()), float((a - b).mean()), float(a.var() + b.var())
    error = math.sqrt(share / n)
    half = Number(1.96 * error, {
        100 * 1.96 * error: "that is in points; give a fraction",
        1.96 * math.sqrt(variance / n): "that is for two different tests; on one test, only disagreements count",
        1.96 * math.sqrt(float(a.var()) / n): "that is one model's interval; this is about the gap",
        error: "that is one standard error: multiply by 1.96",
        3.92 * error: "that is the whole interval; give half of it",
    }, "", 0.05, "half the interval's width is 1.96 times the root of share / n")  # fmt: skip
    high, low = sorted((a.mean(), b.mean()), reverse=True)
    ahead, side = ("better", "above") if gap > 0 else ("worse", "below")
    beats = f"{100 * high:.1f} beats {100 * low:.1f} only if the whole interval of a - b is {side} 0"
    words = [ahead if abs(gap) > width * 1.96 * error else "undecided" for width in (1, 0.95, 1.05)]  # allow resampling
    word = Choice(words, {
        "better": beats,
        "worse": beats,
        "undecided": "0 is outside the interval, so one of these two models is ahead",
    })  # fmt: skip
    why = f"{words[0]}: the gap is {100 * gap:.2f} points, and half the width of its interval is {196 * error:.2f}"
    return {"half": half, "word": word}, why, share


@exercise
def check_report(table: Any, half: float | None, word: str | None) -> Verdict:
    """Lesson 02: check the half-width of the 95% interval of `a - b`, and the verdict on `a`.

    table   Columns a and b: 1 where a model got the row right, else 0.
    """
    ask = "replace the ... with a number and a word"
    try:
        right, why, _ = report(table)
    except (KeyError, TypeError, ValueError) as error:
        return Verdict(False, f"the table needs the columns a and b, 1 for right and 0 for wrong: {error}")
    return parts(right, (half, word), ask, why, HINTS)

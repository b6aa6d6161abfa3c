"""Exercises of lesson 04, train an adapter."""

from __future__ import annotations

import math
from collections.abc import Callable

from lora_course.checks.verdict import Verdict, exercise, function, not_yet, number, unsolved


def check_standard_error(error: Callable[[float, int], float]) -> Verdict:
    """Lesson 04: the standard error of an accuracy p measured on n rows."""
    cases = [(0.82, 2000), (0.5, 100), (0.9, 872)]

    def right(p: float, n: int) -> float:
        return math.sqrt(p * (1 - p) / n)

    near: dict[str, Callable[[float, int], float]] = {
        "that is the variance: take its square root": lambda p, n: right(p, n) ** 2,
        "that is the spread of one row, right or wrong; the mean of n rows spreads less": lambda p, n: right(p, 1),
        "that is in points; p is a share, so its error is one, too": lambda p, n: 100 * right(p, n),
        "that is half of a 95 % interval: the standard error is what 1.96 stands before": lambda p, n: (
            1.96 * right(p, n)
        ),
        "the n belongs under the root as well": lambda p, n: right(p, 1) / n,
    }
    wrong = "each row is right with probability p: variance p (1 - p), and the mean of n has 1/n of it"
    why = f"at 82 % on 2,000 rows {100 * right(0.82, 2000):.2f} points: the usual scatter"
    return function(error, cases, right, why, near, wrong)


@exercise(
    "the difference between two adapters varies only on the rows where they disagree",
    "each such row adds 1 / n or takes it away: the difference has a variance of share / n",
    "the gap must be 1.96 + 0.84 standard errors: solve gap = 2.8 x sqrt(share / n) for n",
)
def check_rows_needed(rows: float | None, share: float = 0.10, gap: float = 0.01) -> Verdict:
    """Lesson 04: test rows that tell two adapters a gap apart, when they disagree on a share of the rows."""
    right = (1.96 + 0.84) ** 2 * share / gap**2
    misconceptions = {
        right / 100: "in shares, not in per cent: 0.10 and 0.01",
        right / 4: f"that is for {200 * gap:g} points: half the difference needs four times the rows",
        right / 2.8: "the 1.96 + 0.84 is squared",
    }
    why = f"about {right:,.0f}: with so many rows a gap of {gap:g} is found in four of five cases"
    fallback = f"both in shares: {share:.2f} and a difference of {gap:g}"
    hint = "n = (1.96 + 0.84)^2 x share of rows they disagree on / difference^2"
    return number(rows, right, misconceptions, why, 0.02, fallback, hint)


def check_largest_change(name: str | None, shares: dict[str, float]) -> Verdict:
    """Lesson 04: the layer whose weight the adapter changed most, relative to the weight's own size."""
    if unsolved(name):
        return not_yet("take the name with the largest value from the table above")
    name = str(name).strip()
    if name not in shares:
        return Verdict(False, f"no layer is called {name!r}; the names are the keys of the table")
    top = max(shares, key=shares.__getitem__)
    if name == top:
        return Verdict(True, f"{top}: |dW| is {shares[top]:.1%} of |W|; the other layers change less")
    return Verdict(False, f"{name} changed by {shares[name]:.1%}; there is a larger one")

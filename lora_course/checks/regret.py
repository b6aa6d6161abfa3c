"""Exercises for lesson 15 (no regret): the lowest point of a parabola, and what eighteen published runs show."""

from collections.abc import Callable
from typing import Any

from lora_course.checks.verdict import Choice, Function, Number, Verdict, exercise, parts, texts

LOWEST = Function(
    cases=[(0.60, 0.50, 0.56), (0.52, 0.50, 0.70), (0.55, 0.50, 0.55), (2.0, 1.0, 1.5)],
    right=lambda a, b, c: (a - c) / (2 * (a - 2 * b + c)),
    why="it is between two rates: for losses 0.60, 0.50, 0.56, it is an eighth of a doubling above the middle one",
    near={
        "wrong sign: if a is above c, the lowest point is to the right": lambda a, b, c: (c - a) / 2 / (a - 2 * b + c),
        "that is where p + q x is 0: the slope of p x + q x² is p + 2 q x": lambda a, b, c: (a - c) / (a - 2 * b + c),
        "that is the lowest loss: return the x where it occurs": lambda a, b, c: b - (a - c) ** 2 / 8 / (a - 2 * b + c),
        "x = 0 is the lowest of the three losses: where does the parabola turn?": lambda a, b, c: 0.0,
    },
    fallback="p = (c - a) / 2 and q = (a + c) / 2 - b; the slope p + 2 q x is 0 at the lowest point",
)
TEXTS = texts("regret")
APART, THEN = Number(**TEXTS["apart"]), Choice(**TEXTS["then"])


@exercise
def check_lowest(place: Callable[[float, float, float], float]) -> Verdict:
    """Lesson 15: check where a parabola through (-1, a), (0, b), (1, c) is lowest."""
    return LOWEST.judge(place)


@exercise
def check_carried(apart: Any, then: Any) -> Verdict:
    """Lesson 15: check how far apart the runs with alpha 16 (three of 18) are, and what to run next."""
    hint = "give a number, and one of: " + ", ".join((*THEN.replies, *THEN.right))
    return parts({"apart": APART, "then": THEN}, (apart, then), hint)

"""Exercises for lesson 15 (no regret): the lowest point of a parabola, and what eighteen published runs support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lora_course.checks.verdict import Choice, Function, Number, Verdict, exercise, parts

LOWEST = Function(
    cases=[(0.60, 0.50, 0.56), (0.52, 0.50, 0.70), (0.55, 0.50, 0.55), (2.0, 1.0, 1.5)],
    right=lambda a, b, c: (a - c) / (2 * (a - 2 * b + c)),
    why="between two of the rates: with losses 0.60, 0.50, 0.56, an eighth of a doubling above the middle one",
    near={
        "the sign: if a is above c, the lowest point is to the right": lambda a, b, c: (c - a) / (2 * (a - 2 * b + c)),
        "that is where p + q x is 0: the slope of p x + q x² is p + 2 q x": lambda a, b, c: (a - c) / (a - 2 * b + c),
        "that is the lowest loss: return its place x": lambda a, b, c: b - (a - c) ** 2 / (8 * (a - 2 * b + c)),
        "x = 0 is the lowest of the three losses: where does the parabola turn?": lambda a, b, c: 0.0,
    },
    fallback="p = (c - a) / 2 and q = (a + c) / 2 - b; the slope p + 2 q x is 0 at the lowest point",
)
LAST = Choice(["nan"], {"the last": "the best may lie beyond", "twice the last": "it wasn't tried"}, "try higher rates")
IMPOSSIBLE = Number(
    16,
    {10: "an update can have that rank: which row is the first above it?", 32: "it can't be, but it isn't the first"},
    fallback="the smaller side of 10 x 512 limits the rank",
)
SENTENCES = {
    "a": "at this rate and length, alpha = r gave the highest accuracy beyond rank 8",
    "b": "beyond rank 4, more rank gains little",
    "c": "at this rate and length, a larger alpha / r gave a higher accuracy at every rank",
    "d": "alpha = 2 r is the best choice here",
    "e": "rank-32 LoRA beats full fine-tuning of the layer",
}
CARRIED = Choice(
    ["c"],
    {
        "a": "look again: in every row the last column is ahead",
        "b": "from rank 4 to 32 the accuracy nearly doubles",
        "d": "it's the largest that was tried, at one rate: more alpha acts like more rate, so both may be too low",
        "e": "one rate for both, and rank 32 trains 16,704 numbers where the layer has 5,130",
    },
    "it says what was seen, and where",
)
THEN = Choice(
    ["more rates"],
    {
        "more ranks": "an update has no more than rank 10, and 32 still beats 16: what else grows with r?",
        "more seeds": "they help with small gaps, and these are large: why does all of it climb with alpha and rank?",
    },
    "10 x 512 has rank 10 at most, and 32 still beats 16: BA grows like r, so more rank acted like a higher rate. Six "
    "epochs lift rank 4 to 61.5%",
)


@exercise(
    "put x = -1 and x = 1 into b + p x + q x², and solve for p and q",
    "at the lowest point the slope p + 2 q x is 0",
    "(a - c) / (2 * (a - 2 * b + c))",
)
def check_lowest(place: Callable[[float, float, float], float], at_the_last: Any) -> Verdict:
    """Lesson 15: where the parabola through losses a, b, c at x = -1, 0, 1 is lowest, and what to return at an edge."""
    hint = f"a function, and one of: {', '.join(LAST.replies)}, nan"
    return parts({"lowest": (LOWEST, place), "at_the_last": (LAST, at_the_last)}, hint, f"{LOWEST.why}; {LAST.why}")


@exercise(
    "the layer has 512 inputs and 10 outputs: which rank can such a matrix have?",
    "read each row from left to right, then each column: which sentence speaks only of what was tried?",
    "16; c; and only one rate was tried",
)
def check_carried(impossible: Any, sentence: Any, then: Any) -> Verdict:
    """Lesson 15: a rank that no update can have, the sentence that eighteen runs support, and what to run next."""
    hint = "a rank, a letter, and one of: " + ", ".join((*THEN.replies, *THEN.right))
    return parts({"impossible": (IMPOSSIBLE, impossible), "sentence": (CARRIED, sentence), "then": (THEN, then)}, hint)

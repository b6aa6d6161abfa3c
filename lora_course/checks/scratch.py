"""Exercises of lesson 02, LoRA from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lora_course.checks.verdict import Verdict, attempt, choice, function


def check_lora_forward(forward: Callable[..., Any]) -> Verdict:
    """Lesson 02: y = W x + (alpha / r) B A x for rows of x, written as a function of (x, W, A, B, alpha)."""
    import torch

    torch.manual_seed(0)
    x, w = torch.randn(5, 12), torch.randn(7, 12)
    a, b, alpha = torch.randn(3, 12), torch.randn(7, 3), 7.0
    said = attempt(forward, *(one.clone() for one in (x, w, a, b)), alpha)
    if isinstance(said, Verdict):
        return said
    if tuple(getattr(said, "shape", ())) != (5, 7):
        return Verdict(
            False, f"the result has shape {tuple(getattr(said, 'shape', ()))}; 5 rows into 7 outputs give (5, 7)"
        )
    base, update = x @ w.T, x @ a.T @ b.T
    near = {
        "the update is not multiplied by alpha / r": base + update,
        "the update is multiplied by alpha, but not divided by the rank (A has r rows)": base + alpha * update,
        "the update is multiplied by r / alpha: the other way round": base + 3 / alpha * update,
        "the update is divided by the number of inputs: the rank is the number of A's rows, A.shape[0]": base
        + alpha / 12 * update,
        "only the frozen part is there: add (alpha / r) B A x": base,
        "only the update is there: add it to W x": alpha / 3 * update,
    }
    said = torch.as_tensor(said).float()
    if torch.allclose(said, base + alpha / 3 * update, atol=1e-5):
        return Verdict(
            True, "W x plus alpha / r times B (A x); in rows, x @ A.T @ B.T: first down to r numbers, then up"
        )
    differ = "the values differ: with x, A and B all one and W all zero, each y is alpha times the number of inputs"
    return Verdict(False, next((why for why, y in near.items() if torch.allclose(said, y, atol=1e-5)), differ))


def check_dead_start(answer: str | None) -> Verdict:
    """Lesson 02: what happens when A and B both start at zero."""
    replies = {
        "a": "it would be slow if the gradients were small; look at them: A's has B as a factor, B's has A",
        "b": "each gradient has the *other* matrix as a factor; with both zero, both gradients are zero, for ever",
        "c": "the update starts at zero either way; the question is whether it can ever leave zero",
    }
    return choice(answer, "b", replies, "which of the letters is it?")


def check_wrong_fan_in(factor: Callable[[int, int], float]) -> Verdict:
    """Lesson 02: how many times too large A is when it is scaled by its rank r, not by its d inputs."""
    cases = [(384, 8), (1024, 4), (4096, 64)]
    why = f"sqrt(d / r): for d = 384 and r = 8 that is {math.sqrt(48):.1f}"
    near: dict[str, Callable[[int, int], float]] = {
        "that is the ratio of the fan-ins; the bound goes with 1 over their square root": lambda d, r: d / r,
        "the other way round: dividing by the smaller number makes A larger": lambda d, r: math.sqrt(r / d),
        "that is right for d = 384 and r = 8 alone: write it with d and r": lambda d, r: math.sqrt(48),
    }
    wrong = "compare the bounds: 1/sqrt(d), as it should be, and 1/sqrt(r), as it came out"
    return function(factor, cases, lambda d, r: math.sqrt(d / r), why, near, wrong)


def check_detour_cost(cost: Callable[[int, int, int], int]) -> Verdict:
    """Lesson 02: multiplications that the detour through A and B costs a token."""
    cases = [(384, 384, 8), (768, 3072, 4), (4096, 1024, 16)]
    why = "r d_in to go down and r d_out to come up: the same as the number of parameters"
    near: dict[str, Callable[[int, int, int], float]] = {
        "that is W's own cost; the detour goes through r numbers": lambda i, o, r: i * o,
        "that is W's cost and the detour's together; the detour alone is asked": lambda i, o, r: i * o + r * (i + o),
        "right for a square layer only: A meets d_in numbers, B gives d_out": lambda i, o, r: 2 * r * i,
        "that is forming B A first; applied one after the other it is far less": lambda i, o, r: r * i * o,
    }
    wrong = "count: A has r x d_in numbers, each used once a token; B likewise"
    return function(cost, cases, lambda i, o, r: r * (i + o), why, near, wrong)

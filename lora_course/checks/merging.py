"""Exercises of lesson 09, merging and swapping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lora_course.checks.verdict import Verdict, attempt, choice, number

SERVING = {
    "a": "three copies of the model are three times its memory, and a batch can hold no row of another customer's",
    "b": "each change rewrites the weights, and the rows of one batch still cannot have different adapters",
    "c": "one base in memory, a thin detour for each row, any mixture in one batch: it pays the detour's time",
}


def check_merged_weight(merged: Callable[[Any, Any, Any, float], Any]) -> Verdict:
    """Lesson 09: the merged weight of a layer, as f(W, A, B, scaling); A (rank, in), B (out, rank), W (out, in)."""
    import numpy as np

    random = np.random.default_rng(0)
    w, a, b = (random.standard_normal(shape) for shape in ((5, 4), (2, 4), (5, 2)))
    given = w.copy(), a.copy(), b.copy()
    found = attempt(merged, *given, 3.0)
    if isinstance(found, Verdict):
        return found
    if not np.array_equal(given[0], w):
        return Verdict(False, "it changes the W that it was given: return a new one, so that there is a way back")
    if getattr(found, "shape", None) != w.shape:
        return Verdict(False, f"W' has W's shape, (out, in), not {getattr(found, 'shape', type(found).__name__)}")
    near = {
        "right; and adding it made nothing larger: W' has W's shape, so it costs what W did": w + 3 * b @ a,
        "the scaling is missing": w + b @ a,
        "that is the update alone: it is added to W": 3 * b @ a,
        "that takes it out: merging adds": w - 3 * b @ a,
        "the scaling belongs to the update, not to W": 3 * (w + b @ a),
    }
    said = next((words for words, value in near.items() if np.allclose(found, value)), "try it on 2 x 2 by hand")
    return Verdict(said.startswith("right"), said.removeprefix("right; and "))


def check_lost_update(size: float | None) -> Verdict:
    """Lesson 09: the size up to which an update of a weight of 0.75 is lost in bf16."""
    hints = {
        2**-8: "that is the whole step: what is nearer to the old number than half a step goes back to it",
        2**-7: "from 1 to 2 the step is 2**-7; from 0.5 to 1 it is half of that, and half a step is asked",
        2**-10: "that is a quarter of the step: half a step is asked",
        2**-24: "that is fp32's half step; bf16 keeps 8 bits of the number, not 24",
    }
    why = (
        "half a step, 0.00195, itself included (a tie goes to the even neighbour, here 0.75); many updates are smaller"
    )
    fallback = "from 0.5 to 1 the numbers are 2**-8 apart: how far must the sum get to be nearer to the next?"
    return number(size, 2**-9, hints, why, 0.03, fallback)


def check_forty_copies(times: float | None, base: int, adapter: int) -> Verdict:
    """Lesson 09: how many times the bytes of one base and forty adapters forty merged models take."""
    right = 40 * base / (base + 40 * adapter)
    hints = {
        1 / right: "the other way round: the merged ones take more",
        base / adapter: "that is one base against one adapter",
        40.0: "nearly: the forty adapters take some room, too",
        (base + 40 * adapter) / base: "that is what the forty adapters add to one base",
    }
    why = f"{right:.0f} times: a merged model brings the whole base again"
    fallback = "forty merged models, each as large as the base, over one base and forty adapters"
    return number(times, right, hints, why, 0.02, fallback)


def check_serving(answer: str | None) -> Verdict:
    """Lesson 09: how to serve customers who each have an adapter and write at the same time."""
    return choice(answer, "c", SERVING)

"""Exercises of old lesson 11, QLoRA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_course.checks.verdict import Verdict, attempt, choice, number

LEVELS = (-1.0, -0.5, -0.1, 0.0, 0.2, 0.4, 1.0)
SCALED = (-1.0, -0.74, -0.76, -0.31, -0.29, -0.06, -0.04, 0.09, 0.11, 0.31, 0.29, 0.69, 0.71, 1.0)
REPLIES = {
    "a": "undecided is not equal: by itself this pair's 90 % interval is inside the margin, but Holm's correction for "
    "four pairs is made for equivalence, too, and with it neither equal nor different is shown",
    "b": "one of four pairs looks unlike 0 by luck more easily than one of one: that is what Holm's correction is for",
    "c": "and where it says undecided, more seeds or more rows would tell, not a closer look at these",
}


def check_codes(codes: Callable[[Any, Any], Any]) -> Verdict:
    """Old lesson 11: the number of the nearest level for each scaled weight, as f(scaled, levels)."""
    import torch

    scaled, levels = torch.tensor(SCALED), torch.tensor(LEVELS)
    answer = attempt(codes, scaled, levels)
    if isinstance(answer, Verdict):
        return answer
    given = _list(answer)
    if given is None or len(given) != len(SCALED):
        return Verdict(False, f"a code for each of the {len(SCALED)} numbers is wanted, in the shape of `scaled`")
    distances = np.abs(np.subtract.outer(SCALED, LEVELS))
    near = distances.argmin(1).tolist()
    if given == near:
        return Verdict(True, "the nearest level; ties do not matter, for either side is as near")
    below, above = np.searchsorted(LEVELS, SCALED, "right") - 1, np.searchsorted(LEVELS, SCALED, "left")
    unsigned = "distances without their sign: take abs() before the smallest is looked for"
    hints = [
        ("those are the levels themselves; the code is the number of the level, 0 to 15", np.take(LEVELS, near)),
        ("that is the level at or below: look whether the one above is nearer", below),
        ("that is the level at or above: look whether the one below is nearer", above),
        ("that is the farthest level: argmin, not argmax", distances.argmax(1)),
        (unsigned, 0),
        (unsigned, len(LEVELS) - 1),
    ]
    first = next(place for place, pair in enumerate(zip(given, near, strict=True)) if pair[0] != pair[1])
    hint = f"{SCALED[first]} lies nearest to level number {near[first]}, {LEVELS[near[first]]}"
    return Verdict(False, next((words for words, wrong in hints if np.allclose(given, wrong)), hint))


def check_bits_per_weight(bits: float | None) -> Verdict:
    """Old lesson 11: what NF4 with double quantisation takes of a weight, everything included."""
    hints = {
        4.5: "that is with fp32 scales: here a scale takes 8 bits, and its own scale 32 bits for 256 of them",
        4.125: "nearly: the scales of the scales are missing, 32 bits for 64 x 256 weights",
        4.0: "codes alone: every 64 weights share a scale of 8 bits",
        4.625: "the fp32 scales are not kept beside the 8-bit ones, they are replaced by them",
        4 + 8 / 64 + 32 / 256: "an fp32 scale serves 256 scales, each of which serves 64 weights: 64 x 256",
        4 + 1 / 8 + 4 / (64 * 256): "right in bytes for the last term: fp32 are 32 bits",
        0.515869140625: "those are bytes: 8 bits make one",
    }
    return number(bits, 4 + 8 / 64 + 32 / (64 * 256), hints, "4 + 8/64 + 32/(64 x 256) = 4.127 bits", 1e-4)


def check_bf16_step(step: float | None) -> Verdict:
    """Old lesson 11: the smallest power of two that can be added to 1 in bf16 and is not lost."""
    hints = {
        2**-8: "1 + 2^-8 lies just between two neighbours, and a tie goes to the even one, which is 1: it is lost",
        2**-9: "that is a quarter of the distance to the next number above 1",
        2**-10: "that is fp16's, which has ten bits behind the point: bf16 has seven",
        2**-23: "that is fp32's: bf16 keeps only seven bits behind the point",
        2**-16: "sixteen bits are the whole number, sign and exponent among them: seven are behind the point",
    }
    why = "seven bits behind the point: the next number above 1 is 1 + 2^-7 = 1.0078"
    return number(step, 2**-7, hints, why, hint="put a number in place of ..., such as 2**-3")


def check_three_bits_said(answer: str | None) -> Verdict:
    """Old lesson 11: what may be said of 3 bits against 16."""
    return choice(answer, "c", REPLIES)


def _list(answer: Any) -> list[float] | None:
    try:
        return [float(x) for x in (answer.flatten().tolist() if hasattr(answer, "flatten") else answer)]
    except (TypeError, ValueError):
        return None

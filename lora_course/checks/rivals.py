"""Exercises of lesson 08, LoRA and its rivals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from lora_course.checks.verdict import Verdict, choice, function, not_yet, number, unsolved

WHY = {
    "a": "validation has fewer sentences than test, 500 against 2,000: its figures are noisier, not better",
    "b": "so that what chooses and what judges are not the same sentences",
    "c": "it may well be that the test would choose the same rate; nobody is to know, because looking is choosing",
}
P_REPLIES = {
    "a": "p > 0.05 says that such a difference may be luck; it does not say that there is none",
    "b": "a larger p does not mean more alike: with few sentences, p is large whatever the truth is",
    "c": "the 90 % interval has to lie inside a margin that was fixed beforehand; till then it is undecided",
}


def check_tuned_rate(rate: float | None, why: str | None, found: Mapping[str, Any]) -> Verdict:
    """Lesson 08: the rate that validation chose for LoRA in a comparison, and why validation does."""
    if unsolved(rate) or unsolved(why):
        return not_yet("put a rate and a letter in place of the ...")
    row: dict[str, Any] = next((row for row in found["methods"] if row["method"] == "lora"), {})
    tried = {one["lr"]: one["validation"] for one in row.get("tried", ()) if one.get("validation") is not None}
    if not isinstance(rate, Real):
        return Verdict(False, f"a rate is wanted, a number, not {type(rate).__name__}")
    own = next((lr for lr in tried if math.isclose(lr, float(rate), rel_tol=1e-3)), None)
    if own is None:
        there = ", ".join(f"{lr:g}" for lr in tried)
        return Verdict(False, f"lora was not tried at {float(rate):g}; rates tried: {there}")
    if not math.isclose(tried[own], max(tried.values())):
        return Verdict(False, f"at {own:g} validation reaches {tried[own]:.1%}, at another rate more: take the highest")
    reason = choice(why, "b", WHY)
    if reason.words not in WHY.values():
        return Verdict(False, f"the rate is right; answer why with one of {', '.join(WHY)}")
    if not reason.passed:
        return Verdict(False, f"the rate is right, the reason is not: {reason.words}")
    return Verdict(True, f"{own:g}, with {tried[own]:.1%} on validation, {reason.words}")


def check_added_share(percent: float | None) -> Verdict:
    """Lesson 08: by how many per cent 20 soft tokens lengthen a sentence of 27."""
    hints = {
        100 * 20 / 47: "that is the prompt's share of the longer row: compare with the 27 that there were",
        100 * 47 / 27: "that is the new length in per cent of the old: asked is what is added",
        20 / 27: "right as a share; asked are per cent",
        20: "that is the number of tokens: divide by the 27 that there were",
        100 * 7 / 20: "the other way round: 20 come to 27",
        100 * 27 / 20: "the other way round: 20 come to 27",
        20 * 384: "those are the numbers that train; asked is how much longer a row gets",
    }
    return number(percent, 100 * 20 / 27, hints, "20 / 27 = 74 %: three quarters more to compute, in every layer", 0.02)


def check_equivalence_rule(rule: Callable[[float, float, float], bool]) -> Verdict:
    """Lesson 08: whether an interval from low to high shows equivalence within a margin, as f(low, high, margin)."""
    ends = [(-0.01, 0.01), (-0.02, 0.01), (-0.01, 0.02), (0.002, 0.012), (-0.1, 0.1), (0.02, 0.03), (-0.03, -0.02)]
    ends += [(0.005, 0.02), (-0.02, -0.005)]  # narrower than two margins, the middle inside
    cases = [*((low, high, 0.015) for low, high in ends), (-0.03, 0.03, 0.05)]
    why = "both ends inside the margin: an interval of 0.2 to 1.2 points is equivalent at 1.5 too"
    near: dict[str, Callable[[float, float, float], bool]] = {
        "that zero is in the interval says only that no difference was found: a wide one has zero in it, too": (
            lambda low, high, margin: low < 0 < high
        ),
        "the middle says nothing of how sure it is: both ends count": lambda low, high, margin: (
            abs(low + high) / 2 < margin
        ),
        "that looks at the upper end alone: the lower may be far below": lambda low, high, margin: high < margin,
        "that looks at the lower end alone: the upper may be far above": lambda low, high, margin: low > -margin,
        "narrow and its middle inside, it may still stick out at one end: both ends count": lambda low, high, margin: (
            high - low < 2 * margin and abs(low + high) / 2 < margin
        ),
        "an interval narrower than the margin may still lie beyond it": lambda low, high, margin: high - low < margin,
        "the lower end is compared with minus the margin": lambda low, high, margin: low < margin and high < margin,
        "one of the ends is not enough: both": lambda low, high, margin: low > -margin or high < margin,
        "the other way round: inside, not outside": lambda low, high, margin: not _inside(low, high, margin),
    }
    hint = "try low = -0.02, high = 0.01 and a margin of 0.015 by hand: the lower end sticks out"
    return function(rule, cases, _inside, why, near, hint)


def _inside(low: float, high: float, margin: float) -> bool:
    return -margin < low and high < margin


def check_not_equal(answer: str | None) -> Verdict:
    """Lesson 08: what "p = 0.4" on 200 sentences allows to say of two methods."""
    return choice(answer, "c", P_REPLIES)

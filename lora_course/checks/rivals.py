"""Exercises of lesson 08, LoRA and its rivals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from lora_course.checks.verdict import Verdict, choice, not_yet, number, unsolved

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


def check_not_equal(answer: str | None) -> Verdict:
    """Lesson 08: what "p = 0.4" on 200 sentences allows to say of two methods."""
    return choice(answer, "c", P_REPLIES)

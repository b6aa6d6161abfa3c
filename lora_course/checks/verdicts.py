"""Exercises of old lesson 15, verdicts on claims. (What a check itself answers is in `checks/verdict.py`.)"""

from __future__ import annotations

from typing import Any, TypeGuard

from lora_course.checks.verdict import Verdict, not_yet, unsolved
from lora_course.claims.cards import card_from, judge
from lora_course.claims.claim_tests import WORDS, Case, Finding
from lora_lab.errors import LabError

WHY = {
    "true": "in every case that was tried it holds",
    "false": "it fails in every case",
    "depends": "it holds in some cases and fails in others",
    "undecided": "no case speaks against it, but not every one could be told",
}


def check_word(answer: str | None, *outcomes: bool | None) -> Verdict:
    """Old lesson 15: which word follows from cases that came out so; None is a case that cannot be told."""
    if unsolved(answer):
        return not_yet(f"one of {', '.join(WORDS)}")
    word = str(answer).strip().lower()
    if word not in WORDS:
        return Verdict(False, f"a verdict is one of {', '.join(WORDS)}, not '{answer}'")
    right = Finding(tuple(Case({"case": n}, holds, "") for n, holds in enumerate(outcomes)), ()).word
    return Verdict(word == right, WHY[right] if word == right else f"'{word}' would mean: {WHY[word]}; is that so?")


def check_turned(claim: str, to: str, changes: dict[str, Any] | None) -> Verdict:
    """Old lesson 15: one changed premise that turns the verdict on a claim to the word `to`."""
    if unsolved(changes):
        return not_yet('a premise and its new value: {"rank": 16}')
    if not _is_changes(changes) or len(changes) != 1:
        return Verdict(False, 'change one premise, and write it as {"name": value}')
    try:
        found = judge(claim, **changes)
    except LabError as error:
        return Verdict(False, str(error))
    if found.word == to:
        return Verdict(True, str(found))
    return Verdict(False, f"then it is {found}")


def check_own_card(text: str | None, changes: dict[str, Any] | None) -> Verdict:
    """Old lesson 15: a card of one's own, and one changed premise that turns its verdict."""
    if unsolved(text) or unsolved(changes):
        return not_yet("write a card, and a premise that turns its verdict: {'gpu_gb': 24}")
    if not _is_changes(changes) or len(changes) != 1:
        return Verdict(False, 'change one premise, and write it as {"name": value}')
    try:
        own = card_from(str(text), "your card")
        before, after = judge(own), judge(own, **changes)
    except LabError as error:
        return Verdict(False, str(error))
    if not own.limits or not own.prediction:
        return Verdict(False, "a card says what must be found (prediction) and what it does not show (limits)")
    if before.word == after.word:
        return Verdict(False, f"with {changes} it is still {after.word}; change one that turns it")
    return Verdict(True, f"{before.words} as you wrote it; {after.words} with {changes}")


def _is_changes(changes: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it says what premises change, and not how `judge` goes about it."""
    return isinstance(changes, dict) and all(isinstance(name, str) and name not in ("of", "store") for name in changes)

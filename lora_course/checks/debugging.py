"""Exercises of lesson 12, debugging: a diagnosis is a fault's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_course.checks.verdict import Verdict, choice, not_yet, unsolved
from lora_course.experiments.broken import PATIENTS
from lora_lab.errors import nearest
from lora_lab.methods import faults

NAMES = tuple(one.fault for one in PATIENTS.values())
HINTS = {
    faults.EMPTY: "look at the header: which tensors does it promise?",
    faults.ZERO_B: "B is zero, and did anything else learn? Look at the head's bias",
    faults.CUT: "B is zero, and did anything else learn? Look at the head's bias",
    faults.TRUNCATED: "compare the bytes that the header promises with those that are there",
    faults.RENAMED: "read a key aloud from the left: what should it begin with?",
    faults.WRONG_BASE: "the numbers are sound. What was W when it was trained?",
    faults.LOW_ALPHA: "by what is B A multiplied? Alpha over rank",
    faults.UNUSED: "eleven adapters moved and one did not: what happens to that layer's output?",
    faults.ROUNDED: "compare the update with the distance between two neighbouring numbers of the weight's dtype",
    faults.NOT_FINITE: "look at the numbers themselves: are they all numbers?",
}


def check_diagnosis(diagnosis: Mapping[str, Any] | None, of: str = "") -> Verdict:
    """Lesson 12: the fault of each patient, as {"A": "truncated file", ...}. Says of each wrong one where to look.

    of: the letters that are asked for; one that is missing is no answer yet.
    """
    if not isinstance(diagnosis, Mapping) and not unsolved(diagnosis):
        return Verdict(False, 'write a name for each letter: {"A": "truncated file", ...}')
    if unsolved(diagnosis) or not diagnosis or any(unsolved(given) for given in diagnosis.values()):
        return not_yet("a name for each letter; the names are in the list above")
    if missing := [letter for letter in of if letter not in diagnosis]:
        return not_yet(f"name {' and '.join(missing)} as well")
    names = {name.lower(): name for name in NAMES}
    for letter, given in diagnosis.items():
        if letter not in PATIENTS:
            return Verdict(False, f"there is no patient {letter!r}; there are {', '.join(PATIENTS)}")
        if str(given).strip().lower() not in names:
            return Verdict(False, f"{letter}: no fault is called {given!r}; nearest: {nearest(str(given), NAMES, 2)}")
    named = {letter: names[str(given).strip().lower()] for letter, given in diagnosis.items()}
    wrong = [letter for letter, given in named.items() if given != PATIENTS[letter].fault]
    if wrong:
        return Verdict(False, "; ".join(f"{letter}: {HINTS[PATIENTS[letter].fault]}" for letter in wrong))
    return Verdict(True, "; ".join(f"{letter}: {PATIENTS[letter].fault}" for letter in diagnosis))


def check_first_look(answer: Any) -> Verdict:
    """Lesson 12: what to look at in the first step, at rate 0, of a training that is to last four days."""
    replies = {
        "a": "at rate 0 nothing is learned, and later the loss falls by the head alone, too, as in patient C",
        "b": "at rate 0 nothing moves: B stays zero in a sound run, too. What would move it, once the rate rises?",
        "c": "a sound run has one in every layer, at rate 0, too; C and H do not. What goes wrong later, in the file "
        "or by NaN, it cannot show",
        "d": "memory says that something is computed, not that it learns: in C it was low because gradients were cut",
    }
    return choice(answer, "c", replies)

"""Exercises for lesson 07 (why does it do nothing): name the fault of each broken adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_course.checks.verdict import Verdict, exercise, not_yet, unsolved
from lora_course.experiments import broken
from lora_course.experiments.broken import PATIENTS
from lora_lab.errors import nearest
from lora_lab.methods import faults

NAMES = tuple(patient.fault for patient in PATIENTS.values())
HINTS = {
    faults.EMPTY: "look at the header: which tensors does it promise?",
    faults.ZERO_B: "B is zero, and did anything else learn? Look at the head's bias",
    faults.CUT: "B is zero, and did anything else learn? Look at the head's bias",
    faults.TRUNCATED: "compare the bytes that the header promises with those that are there",
    faults.RENAMED: "read a key aloud from the left: what should it begin with?",
    faults.WRONG_BASE: "the numbers are sound. What was W when it was trained?",
    faults.LOW_ALPHA: "what is B A multiplied by? Alpha over rank",
    faults.UNUSED: "eleven adapters moved and one did not: what happens to that layer's output?",
    faults.ROUNDED: "compare the update with the distance between two neighboring numbers of the weight's dtype",
    faults.NOT_FINITE: "look at the numbers themselves: are they all numbers?",
}


@exercise()
def check_diagnosis(diagnosis: Mapping[str, Any] | None, of: str = "") -> Verdict:
    """Lesson 07: check the fault of each patient, {"A": "truncated file", ...}; say where to look for each wrong one.

    of   letters of the patients to diagnose; while one is missing, the verdict is "not yet"
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
            return Verdict(False, f"there is no patient {letter!r}; available: {', '.join(PATIENTS)}")
        if str(given).strip().lower() not in names:
            return Verdict(False, f"{letter}: no fault is called {given!r}; nearest: {nearest(str(given), NAMES, 2)}")
    named = {letter: names[str(given).strip().lower()] for letter, given in diagnosis.items()}
    wrong = [letter for letter, given in named.items() if given != PATIENTS[letter].fault]
    if wrong:
        return Verdict(False, "; ".join(f"{letter}: {HINTS[PATIENTS[letter].fault]}" for letter in wrong))
    return Verdict(True, "; ".join(f"{letter}: {PATIENTS[letter].fault}" for letter in diagnosis))


ELEVENTH = {
    faults.SOME_ZERO: "compare the largest number of B in each layer: are they all alike?",
    faults.MISSING: "count the tensors: a sound adapter has an A and a B for each layer, and the head",
    faults.RENAMED: "read a name aloud from the left: what should it begin with?",
    faults.NOT_FINITE: "B is only half of the adapter: look at the numbers of A",
}


@exercise()
def check_eleventh(diagnosis: str | None, number: int) -> Verdict:
    """Lesson 07: check the name of the eleventh patient's fault, entry `number` of `broken.ELEVENTH`."""
    if unsolved(diagnosis):
        return not_yet(f"name its fault: one of {', '.join(ELEVENTH)}")
    fault, given = broken.ELEVENTH[number][0], str(diagnosis).strip()
    if given.lower() != fault.lower():
        return Verdict(False, f"{given!r} isn't it", f"Hint: {ELEVENTH[fault]}")
    return Verdict(True, f"{fault}. To fix it: {faults.REMEDIES[fault]}")

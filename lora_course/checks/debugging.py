"""Exercises for lesson 07 (why does it do nothing): name the fault of each broken adapter."""

from collections.abc import Mapping
from typing import Any

from lora_course.checks.verdict import Verdict, exercise, texts, unsolved
from lora_course.experiments import broken
from lora_course.experiments.broken import PATIENTS
from lora_lab.errors import nearest
from lora_lab.methods import faults

NAMES = tuple(patient.fault for patient in PATIENTS.values())
HINTS, ELEVENTH, STORY = (texts("debugging")[part] for part in ("ten", "eleventh", "story"))


@exercise
def check_diagnosis(diagnosis: Mapping[str, Any] | None) -> Verdict:
    """Lesson 07: check each patient's fault, {"A": "truncated file", ...}; say where to look for each wrong answer."""
    if not isinstance(diagnosis, Mapping) and not unsolved(diagnosis):
        return Verdict(False, 'write the name of a fault for each letter: {"A": "truncated file", ...}')
    if unsolved(diagnosis) or not diagnosis or {*PATIENTS} - {*diagnosis} or any(map(unsolved, diagnosis.values())):
        return Verdict(None, "name the fault for each letter; the names are in the list above")
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


@exercise
def check_eleventh(diagnosis: str | None, number: int) -> Verdict:
    """Lesson 07: check the name of the eleventh patient's fault, entry `number` of `broken.ELEVENTH`."""
    if unsolved(diagnosis):
        return Verdict(None, f"name its fault: one of {', '.join(ELEVENTH)}")
    fault, given = broken.ELEVENTH[number][0], str(diagnosis).strip()
    if given.lower() != fault.lower():
        return Verdict(False, f"the fault isn't {given!r}", f"Hint: {ELEVENTH[fault]}")
    return Verdict(True, f"{fault}. {STORY.get(fault) or f'To fix it: {faults.REMEDIES[fault]}'}")

"""Exercises for lesson 07 (why does it do nothing): name the fault of each broken adapter."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lora_course.checks.verdict import Choice, Verdict, exercise, letters, texts, unsolved
from lora_course.experiments import broken
from lora_course.experiments.broken import PATIENTS
from lora_lab.errors import nearest
from lora_lab.methods.inspect import REMEDIES

NAMES = tuple(patient.fault for patient in PATIENTS.values())
HINTS, ELEVENTH, STORY = (texts("debugging")[part] for part in ("ten", "eleventh", "story"))


@exercise
def check_diagnosis(diagnosis: Mapping[str, Any] | None, first: Mapping[str, Any] | None = None) -> Verdict:
    """Lesson 07: check each patient's fault, {"A": "truncated file", ...}; for each wrong answer, say where to look.

    first   The diagnoses made before the four looks; the reply counts the right ones.
    """
    if not isinstance(diagnosis, Mapping) and not unsolved(diagnosis):
        return Verdict(False, 'write the name of a fault for each letter: {"A": "truncated file", ...}')
    if unsolved(diagnosis) or not diagnosis or {*PATIENTS} - {*diagnosis} or any(map(unsolved, diagnosis.values())):
        return Verdict(None, "name the fault for each letter; the names are in the list above")
    names = {letters(name): name for name in NAMES}
    for letter, given in diagnosis.items():
        if letter not in PATIENTS:
            return Verdict(False, f"there is no patient {letter!r}; available: {', '.join(PATIENTS)}")
        if letters(str(given)) not in names:
            return Verdict(False, f"{letter}: no fault is called {given!r}; nearest: {nearest(str(given), NAMES, 2)}")
    named = {letter: names[letters(str(given))] for letter, given in diagnosis.items()}
    first = {bed: given for bed, given in (first or {}).items() if bed in PATIENTS}
    early = [names.get(letters(str(given))) == PATIENTS[bed].fault for bed, given in first.items()]
    count = f". {sum(early)} of your first ten were right" * bool(first and not any(map(unsolved, first.values())))
    wrong = [letter for letter, given in named.items() if given != PATIENTS[letter].fault]
    if wrong:
        return Verdict(False, "; ".join(f"{letter}: {HINTS[PATIENTS[letter].fault]}" for letter in wrong) + count)
    return Verdict(True, "; ".join(f"{letter}: {PATIENTS[letter].fault}" for letter in diagnosis) + count)


@exercise
def check_eleventh(diagnosis: str | None, number: int) -> Verdict:
    """Lesson 07: check the name of the eleventh patient's fault, entry `number` of `broken.ELEVENTH`."""
    fault = broken.ELEVENTH[number][0]
    why = f"{fault}. {STORY.get(fault) or f'To fix it: {REMEDIES[fault]}'}"
    replies = dict.fromkeys((*ELEVENTH, *NAMES), f"the fault isn't {diagnosis!r}")
    verdict = Choice([fault], replies, why, hint="name one of the ten, or 'tensors missing'").judge(diagnosis)
    return replace(verdict, hint=f"Hint: {ELEVENTH[fault]}") if verdict.passed is False else verdict

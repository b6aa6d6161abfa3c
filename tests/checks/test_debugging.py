"""The checks of lesson 12 pass a right diagnosis, say where to look after a wrong one, and wait for an unsolved one."""

from __future__ import annotations

import pytest

from lora_lab import checks
from lora_lab.checks.debugging import HINTS, NAMES
from lora_lab.experiments.broken import PATIENTS

TRUE = {letter: one.fault for letter, one in PATIENTS.items()}
RIGHT = {"diagnosis": (TRUE,), "first_look": ("B",)}
UNSOLVED = {"diagnosis": ({"A": ..., "B": "empty file"},), "first_look": (...,)}
WRONG = [
    ("diagnosis", ({**TRUE, "C": "B is all zero"},), "C: B is zero, and did anything else learn"),
    ("diagnosis", ({"A": "truncated file", "D": "empty file"},), "A: look at the header.*D: compare the bytes"),
    ("diagnosis", ({"A": "empty fil"},), "nearest: empty file"),
    ("diagnosis", (["empty file"],), "a name for each letter"),
    ("diagnosis", ({"Z": "empty file"},), "there is no patient 'Z'"),
    ("first_look", ("a",), "the head alone"),
    ("first_look", ("c",), "memory"),
    ("first_look", ("x",), "one of a, b, c"),
]


def test_a_fault_may_be_written_with_a_capital():
    assert checks.check_diagnosis({"A": "Empty file ", "B": "b is all zero"}).passed is True


@pytest.mark.parametrize("name", RIGHT)
def test_right_and_unsolved(name):
    check = getattr(checks, f"check_{name}")
    assert check(*RIGHT[name]).passed is True
    assert check(*UNSOLVED[name]).passed is None


@pytest.mark.parametrize(("name", "arguments", "words"), WRONG)
def test_wrong_answers_get_a_hint(name, arguments, words):
    import re

    verdict = getattr(checks, f"check_{name}")(*arguments)
    assert verdict.passed is False
    assert re.search(words, verdict.words)


def test_each_fault_has_a_hint_that_does_not_name_it():
    assert set(HINTS) == set(NAMES)
    assert not any(name in hint for name, hint in HINTS.items())

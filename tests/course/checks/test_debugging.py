"""The checks of lesson 07: answers for `test_checks`, and the hints beside each fault."""

from pathlib import Path

import pytest

from lora_course import checks
from lora_course.checks.debugging import HINTS, NAMES
from lora_course.experiments.broken import ELEVENTH, PATIENTS, eleventh
from lora_lab.training.named import inspect_folder

TRUE = {letter: one.fault for letter, one in PATIENTS.items()}
RIGHT = {"diagnosis": (TRUE,), "eleventh": ("B is zero in some layers", 0)}
WRONG = [
    ("diagnosis", ({**TRUE, "C": "B is all zero"},), "C: B is zero, and did anything else learn"),
    (
        "diagnosis",
        ({"A": "truncated file", "D": "empty file"},),
        "header: which tensors does it promise?; D: compare the bytes",
    ),
    ("diagnosis", ({"A": "empty fil"},), "nearest: empty file"),
    ("diagnosis", (["empty file"],), "a name for each letter"),
    ("diagnosis", ({"Z": "empty file"},), "there is no patient 'Z'"),
    ("eleventh", ("wrong base", 0), "'wrong base' isn't it"),
]


def test_a_diagnosis_of_fewer_patients_than_are_asked_for_is_not_yet_one():
    assert checks.check_diagnosis({"A": ..., "B": "empty file"}).passed is None
    found = checks.check_diagnosis({"A": "empty file"}, of="ADE")
    assert found.passed is None
    assert "D and E" in found.words
    assert checks.check_diagnosis({letter: TRUE[letter] for letter in "ADE"}, of="ADE").passed is True


def test_each_fault_has_a_hint_that_does_not_name_it():
    assert set(HINTS) == set(NAMES)
    assert not any(name in hint for name, hint in HINTS.items())


@pytest.mark.parametrize("number", range(len(ELEVENTH)))
def test_the_eleventh_patient_is_found_by_inspect_and_a_wrong_name_gets_a_hint(number: int, tmp_path: Path):
    folder = eleventh(number, tmp_path / "K")
    assert checks.check_eleventh("wrong base", number).hint
    assert checks.check_eleventh(inspect_folder(folder, "minilm").problems[0].name.upper(), number).passed is True

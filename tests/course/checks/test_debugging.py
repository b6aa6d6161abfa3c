"""Tests of the checks of lesson 07."""

from pathlib import Path

import pytest

from lora_course import checks
from lora_course.checks.debugging import HINTS, NAMES
from lora_course.experiments.broken import ELEVENTH, PATIENTS, eleventh
from lora_lab.training.named import inspect_folder

FAULTS = {letter: patient.fault for letter, patient in PATIENTS.items()}
RIGHT = [
    ("diagnosis", (FAULTS,)),
    ("diagnosis", ({letter: FAULTS[letter] for letter in "ADE"}, "ADE")),
    ("eleventh", ("B is zero in some layers", 0)),
]
UNSOLVED = [
    ("diagnosis", ({"A": ..., "B": "empty file"},), "name the fault for each letter"),
    ("diagnosis", ({"A": "empty file"}, "ADE"), "also name the fault of D and E"),
]
WRONG = [
    ("diagnosis", ({**FAULTS, "C": "B is all zero"},), "C: B is zero, but did anything else learn"),
    ("diagnosis", ({"A": "truncated file", "D": "empty file"},), "which tensors does it promise?; D: compare the"),
    ("diagnosis", ({"A": "empty fil"},), "nearest: empty file"),
    ("diagnosis", (["empty file"],), "a fault for each letter"),
    ("diagnosis", ({"Z": "empty file"},), "there is no patient 'Z'"),
    ("eleventh", ("wrong base", 0), "the fault isn't 'wrong base'"),
]


def test_hints_do_not_name_a_fault():
    assert set(HINTS) == set(NAMES)
    assert not any(name in hint for name, hint in HINTS.items())


@pytest.mark.parametrize("number", range(len(ELEVENTH)))
def test_inspect_diagnoses_the_eleventh_patient(number: int, tmp_path: Path):
    folder = eleventh(number, tmp_path / "K")
    assert checks.check_eleventh("wrong base", number).hint
    assert checks.check_eleventh(inspect_folder(folder, "minilm").problems[0].name.upper(), number).passed

import pytest

from lora_course import checks
from lora_course.checks.debugging import HINTS, NAMES
from lora_course.experiments.broken import ELEVENTH, PATIENTS, SOUND, eleventh, patient
from lora_lab.training.assets import shipped
from lora_lab.training.named import inspect_folder

FAULTS = {letter: patient.fault for letter, patient in PATIENTS.items()}
RIGHT = [("diagnosis", (FAULTS,)), ("eleventh", ("NaN or infinity", 0))]
UNSOLVED = [("diagnosis", ({"A": ..., "B": "empty file"},), "name the fault for each letter")]
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


def test_inspect_finds_no_fault_in_a_working_adapter():
    assert inspect_folder(shipped(f"data/results/{SOUND}"), "minilm", dtype="bf16").problems == []


@pytest.mark.parametrize("letter", PATIENTS)
def test_inspect_finds_the_fault_of_each_patient_and_no_other(letter, tmp_path):
    report = inspect_folder(patient(letter, tmp_path), "minilm", dtype=PATIENTS[letter].dtype)
    assert [problem.name for problem in report.problems] == [FAULTS[letter]]


@pytest.mark.parametrize("number", range(len(ELEVENTH)))
def test_inspect_diagnoses_the_eleventh_patient(number, tmp_path):
    folder = eleventh(number, tmp_path / "K")
    assert checks.check_eleventh("wrong base", number).hint
    assert checks.check_eleventh(inspect_folder(folder, "minilm").problems[0].name.upper(), number).passed

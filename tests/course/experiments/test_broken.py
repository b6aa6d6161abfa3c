"""Tests of lesson 07's patients: `inspect` finds each fault, and no other."""

import pytest

from lora_course.experiments.broken import PATIENTS, SOUND, patient
from lora_lab.training.assets import shipped
from lora_lab.training.named import inspect_folder


@pytest.mark.parametrize("letter", PATIENTS)
def test_inspect_finds_the_fault(letter, tmp_path):
    report = inspect_folder(patient(letter, tmp_path), "minilm", dtype=PATIENTS[letter].dtype)
    assert [problem.name for problem in report.problems] == [PATIENTS[letter].fault]


def test_inspect_finds_no_fault_in_a_working_adapter():
    report = inspect_folder(shipped(f"data/results/{SOUND}"), "minilm", dtype="bf16")
    assert report.problems == []
    assert report.does_something

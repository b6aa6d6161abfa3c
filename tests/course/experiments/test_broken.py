"""Each patient of lesson 07 is found out by `inspect`, under the right name and no other."""

import pytest

from lora_course.experiments.broken import PATIENTS, patient
from lora_lab.training.assets import shipped
from lora_lab.training.named import inspect_folder


@pytest.mark.parametrize("letter", PATIENTS)
def test_inspect_names_the_fault_of_each(letter, tmp_path):
    found = inspect_folder(patient(letter, tmp_path), "minilm", dtype=PATIENTS[letter].dtype)
    assert [problem.name for problem in found.problems] == [PATIENTS[letter].fault]


def test_the_sound_one_is_sound():
    found = inspect_folder(shipped("data/results/minilm-rt-r8"), "minilm", dtype="bf16")
    assert found.problems == []
    assert found.does_something

"""Predictions against GPU runs of PEFT's MetaMathQA suite; `make bench` prints all of them."""

from __future__ import annotations

import pytest

from lora_lab import params
from tests.benchmarks.metamath import FAMILY, FITTED, length, model, predicted, runs

COVERED = [name for name, run in runs().items() if run.method is not None]


def test_the_fitted_length_is_one_that_the_suite_can_have():
    assert 600 < length() < 768


@pytest.mark.parametrize("name", [FITTED, *FAMILY])
def test_lora_within_three_percent_of_what_a_gpu_reserved(name):
    assert predicted(runs()[name], length()) == pytest.approx(runs()[name].reserved, rel=0.03)


@pytest.mark.parametrize("name", COVERED)
def test_as_many_numbers_train_as_in_the_run(name):
    assert params(model(), runs()[name].method).trainable == runs()[name].trainable


def test_lora_prompt_tuning_and_full_are_covered():
    assert len(runs()) == 18
    assert {type(runs()[name].method).__name__ for name in COVERED} == {"LoRA", "PromptTuning", "FullFineTuning"}

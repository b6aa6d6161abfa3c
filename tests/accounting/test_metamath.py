"""Predictions against GPU runs of PEFT's MetaMathQA suite; `make bench` prints all of them."""

from __future__ import annotations

import pytest

from benchmarks.estimators import followed
from benchmarks.metamath import FAMILY, FITTED, model, predicted, runs
from lora_lab import params

COVERED = [name for name, run in runs().items() if run.method is not None]


@pytest.mark.parametrize(("name", "within"), [(FITTED, 0.0005), *((name, 0.02) for name in FAMILY)])
def test_lora_within_two_percent_of_what_a_gpu_reserved(name, within):
    run = runs()[name]
    ours, at_once = followed(run), predicted(run)  # None for DoRA
    assert ours.reserved == pytest.approx(run.reserved, rel=within)
    assert 0.95 < ours.allocated / run.reserved < 1
    assert at_once is None or 0.95 < at_once / run.reserved < 1


@pytest.mark.parametrize("name", COVERED)
def test_as_many_numbers_train_as_in_the_run(name):
    assert params(model(), runs()[name].method).trainable == runs()[name].trainable

"""Predictions against GPU runs of PEFT's MetaMathQA suite; `make bench` prints all of them."""

from __future__ import annotations

import pytest

from benchmarks.estimators import followed
from benchmarks.metamath import FAMILY, FITTED, model, predicted, runs
from lora_lab import params


@pytest.mark.parametrize(("name", "within"), [(FITTED, 0.0005), *((name, 0.02) for name in FAMILY)])
def test_lora_within_two_percent_of_what_a_gpu_reserved(name, within):
    run = runs()[name]
    assert run.method is None or params(model(), run.method).trainable == run.trainable
    ours, at_once = followed(run), predicted(run)  # None for DoRA
    assert ours.reserved == pytest.approx(run.reserved, rel=within)
    assert 0.95 < ours.allocated / run.reserved < 1
    assert at_once is None or 0.95 < at_once / run.reserved < 1

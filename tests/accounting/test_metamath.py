"""Tests of predictions against GPU runs of PEFT's MetaMathQA suite; `make bench` prints all of them."""

import pytest

from benchmarks.estimators import followed
from benchmarks.metamath import FAMILY, FITTED, model, predicted, runs
from lora_lab import params


@pytest.mark.parametrize(("name", "tolerance"), [(FITTED, 0.0005), *((name, 0.02) for name in FAMILY)])
def test_lora_runs_match_the_reserved_gpu_memory(name, tolerance):
    run = runs()[name]
    assert run.method is None or params(model(), run.method).trainable == run.trainable
    trace, prediction = followed(run), predicted(run)  # DoRA has no prediction
    assert trace.reserved == pytest.approx(run.reserved, rel=tolerance)
    assert 0.95 < trace.allocated / run.reserved < 1
    assert prediction is None or 0.95 < prediction / run.reserved < 1

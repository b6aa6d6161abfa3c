"""What tasks are judged by, against scikit-learn and scipy on the same rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef

from lora_lab.metrics import better
from lora_lab.training.metrics import also, f1, matthews, pearson, regression_metrics, spearman

BITS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
NUMBERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=40)


@given(BITS)
def test_matthews_and_f1_are_scikit_learns(rows):
    predicted, true = np.array(rows).T
    assert matthews(predicted, true) == pytest.approx(matthews_corrcoef(true, predicted), abs=1e-12)
    found = also(("accuracy", "f1", "matthews"), predicted, true)
    assert found["f1"] == pytest.approx(f1_score(true, predicted, zero_division=0.0))
    assert set(found) == {"f1", "matthews"}  # accuracy is measured anyway
    assert f1(predicted == 0, true == 0) == pytest.approx(f1_score(true, predicted, pos_label=0, zero_division=0.0))


@given(NUMBERS)
def test_correlations_are_scipys(rows):
    predicted, true = np.array(rows, dtype=float).T
    found = regression_metrics(predicted, true)
    assert found["loss"] == pytest.approx(float(((predicted - true) ** 2).mean()))
    if len(set(predicted)) > 1 and len(set(true)) > 1:
        assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(predicted, true)[0], abs=1e-9)
        assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(predicted, true)[0], abs=1e-9)


def test_a_constant_prediction_is_worth_nothing():
    constant, true = np.ones(4), np.array([0.0, 1.0, 2.0, 3.0])
    assert pearson(constant, true) == spearman(constant, true) == matthews(constant, true > 1) == 0.0
    assert pearson(np.full(3, 0.1), np.full(3, 0.1)) == 0.0  # whose mean is not quite 0.1


def test_better_means_more_accurate_or_less_perplexed():
    assert better({"accuracy": 0.8, "loss": 9}, {"accuracy": 0.7, "loss": 1})
    assert not better({"accuracy": 0.8}, {"accuracy": 0.8})
    assert better({"perplexity": 10}, {"perplexity": 11})
    assert not better({"perplexity": math.nan}, {"perplexity": 11})
    assert better({"pearson": 0.5, "loss": 9}, {"pearson": 0.4, "loss": 1})
    assert better({"matthews": 0.2, "accuracy": 0.6}, {"matthews": 0.0, "accuracy": 0.7})  # CoLA's own comes first

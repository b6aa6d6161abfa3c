"""Pictures hold what they are given, in units that the axes name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab.plots import smoothed, training_picture


@pytest.mark.parametrize(
    ("metric", "drawn", "label"),
    [("accuracy", 80, "validation accuracy (%)"), ("perplexity", 0.8, "validation perplexity")],
)
def test_a_run_is_drawn_in_the_units_that_the_axes_name(metric: str, drawn: float, label: str):
    history = {"step": [1, 2], "loss": [0.7, 0.6], "validation": [{"step": 1, metric: 0.6}, {"step": 2, metric: 0.8}]}
    figure = training_picture(history, metric, "a finding")
    loss, axes = figure.axes
    assert (axes.get_ylabel(), loss.get_ylabel(), figure.get_suptitle()) == (label, "training loss (nats)", "a finding")
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(drawn)
    assert figure._repr_png_().startswith(b"\x89PNG")


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(1, 30))
def test_smoothing_is_the_mean_of_the_last_losses(losses: list[float], window: int):
    expected = [np.mean(losses[max(0, i + 1 - window) : i + 1]) for i in range(len(losses))]
    assert np.allclose(smoothed(losses, window), expected, atol=1e-9)

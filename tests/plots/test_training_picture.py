"""Pictures hold what they are given, in units that the axes name."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_lab.plots import Curve, smoothed, training_picture

RUN = Curve("rank 8", [1, 2, 3, 4], [0.7, 0.6, 0.5, 0.4], [(2, 0.6), (4, 0.8)])


def test_accuracy_is_drawn_in_per_cent_and_the_axes_say_so():
    figure = training_picture(RUN, "accuracy", "a finding")
    loss, metric = figure.axes
    assert metric.get_ylabel() == "validation accuracy (%)"
    assert loss.get_ylabel() == "training loss (nats)"
    assert figure.get_suptitle() == "a finding"
    assert any(list(line.get_ydata()) == [60, 80] for line in metric.lines)


def test_a_notebook_shows_the_picture_by_itself():
    assert training_picture(RUN, "accuracy", "")._repr_png_().startswith(b"\x89PNG")


def test_perplexity_keeps_its_own_scale():
    figure = training_picture(Curve("x", [1], [3.0], [(1, 20.0)]), "perplexity", "")
    assert any(list(line.get_ydata()) == [20] for line in figure.axes[1].lines)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(1, 30))
def test_smoothing_is_the_mean_of_the_last_losses(losses: list[float], window: int):
    expected = [np.mean(losses[max(0, i + 1 - window) : i + 1]) for i in range(len(losses))]
    assert np.allclose(smoothed(losses, window), expected, atol=1e-9)

"""Pictures hold what they are given, in units that the axes name, and say it in words."""

import numpy as np
import pytest

from lora_lab.plots import training_picture


@pytest.mark.parametrize(
    ("metric", "drawn", "label"),
    [("accuracy", 80, "validation accuracy (%)"), ("perplexity", 0.8, "validation perplexity")],
)
def test_a_run_is_drawn_in_the_units_that_the_axes_name(metric: str, drawn: float, label: str):
    steps, losses = list(range(1, 61)), np.linspace(0.7, 0.1, 60).tolist()
    history = {"step": steps, "loss": losses, "validation": [{"step": 1, metric: 0.6}, {"step": 60, metric: 0.8}]}
    figure = training_picture(history, metric, "a finding")
    loss, axes = figure.axes
    assert (axes.get_ylabel(), loss.get_ylabel(), figure.get_suptitle()) == (label, "training loss (nats)", "a finding")
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(drawn)
    smooth = loss.lines[1].get_ydata()
    assert [smooth[0], smooth[-1]] == pytest.approx([0.7, np.mean(losses[-25:])])


def test_a_picture_is_a_png_with_its_titles_or_its_own_description():
    figure = training_picture(
        {"step": [], "loss": [], "validation": [{"step": 0, "accuracy": 0.5}]}, "accuracy", "a\nb"
    )
    alt = "a b accuracy: 0 50."  # titles, and the points of lines that have any
    assert figure._repr_mimebundle_() == ({"text/plain": alt}, {"image/png": {"alt": alt}})
    figure.alt = "half"
    assert figure._repr_mimebundle_()[0] == {"text/plain": "half"}
    assert figure._repr_png_().startswith(b"\x89PNG")

import numpy as np
import pytest

from lora_lab.plots import training_picture


@pytest.mark.parametrize(
    ("metric", "last", "label"),
    [("accuracy", 80, "validation accuracy (%)"), ("perplexity", 0.8, "validation perplexity")],
)
def test_curves_are_in_the_units_of_the_axes(metric: str, last: float, label: str):
    steps, losses = list(range(1, 61)), np.linspace(0.7, 0.1, 60).tolist()
    history = {"step": steps, "loss": losses, "validation": [{"step": 1, metric: 0.6}, {"step": 60, metric: 0.8}]}
    figure = training_picture(history, metric, "a finding")
    loss, axes = figure.axes
    assert (axes.get_ylabel(), loss.get_ylabel(), figure.get_suptitle()) == (label, "training loss (nats)", "a finding")
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(last)
    smoothed = loss.lines[1].get_ydata()
    assert [smoothed[0], smoothed[-1]] == pytest.approx([0.7, np.mean(losses[-25:])])


def test_picture_has_a_description():
    history = {"step": [], "loss": [], "validation": [{"step": 0, "accuracy": 0.5}]}
    figure = training_picture(history, "accuracy", "a\nb")
    assert figure._repr_mimebundle_() == ({"text/plain": "a b"}, {"image/png": {"alt": "a b"}})
    figure.alt = "half"
    assert figure._repr_mimebundle_()[0] == {"text/plain": "half"}
    assert figure._repr_png_().startswith(b"\x89PNG")

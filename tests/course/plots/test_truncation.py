"""The microscope's curves: what is seen is drawn, what is low in rank goes on, and the words are the finding."""

from __future__ import annotations

import numpy as np
import pytest

from lora_course.experiments.microscope import Seen, Sentences, Views
from lora_course.plots.truncation import enough, microscope_picture


@pytest.fixture
def views() -> Views:
    """100 sentences: full learns with its first two directions, LoRA has two, noise learns nothing."""
    labels = np.arange(100) % 2

    def seen(rank: int, energy: float, right: int) -> Seen:
        return Seen(rank, energy, np.where(np.arange(100) < right, labels, 1 - labels))

    looks = {
        "full": {0: seen(0, 0, 50), 2: seen(2, 0.3, 80), 64: seen(64, 1, 82)},
        "LoRA": {0: seen(0, 0, 50), 2: seen(2, 1, 80)},
        "noise": {0: seen(0, 0, 50), 64: seen(64, 1, 51)},
    }
    return Views(Sentences(("x",) * 100, labels, ("no", "yes")), {n: tuple(s) for n, s in looks.items()}, looks)


def test_the_title_is_the_finding(views: Views):
    picture = microscope_picture(views)
    title = picture.get_suptitle().replace("\n", " ")
    assert "full: rank 2 has 90% of the gain, with 30% of the energy" in title
    assert "noise gains nothing" in title
    assert picture._repr_png_()


def test_a_curve_goes_on_only_when_it_is_seen_whole(views: Views):
    lines = {line.get_label(): line for line in microscope_picture(views).axes[0].lines}
    assert list(lines["LoRA"].get_xdata()) == [0, 2, 384]
    assert list(lines["LoRA"].get_ydata()) == [50, 80, 80]
    del views.seen["LoRA"][2]
    lines = {line.get_label(): line for line in microscope_picture(views).axes[0].lines}
    assert list(lines["LoRA"].get_xdata()) == [0]
    assert enough(views, "LoRA") == ""


def test_nothing_seen_is_an_empty_picture(views: Views):
    views.seen.clear()
    assert microscope_picture(views)._repr_png_()

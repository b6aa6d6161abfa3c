"""The picture of intrinsic dimension says which d is enough."""

from __future__ import annotations

import pytest

from lora_course.experiments.intrinsic import Point
from lora_course.plots.intrinsic import intrinsic_picture


def test_the_first_d_above_the_bar_is_in_the_title():
    points = [Point(d, {"accuracy": a}, 0.0) for d, a in ((0, 0.6), (100, 0.76), (1000, 0.8))]
    picture = intrinsic_picture(points, 0.82, {"LoRA": (73_728, 0.81)})
    assert "d = 100 is the first of 0 to 1,000" in picture.get_suptitle()
    assert list(picture.axes[0].lines[0].get_xdata()) == [0, 100, 1000]
    assert picture._repr_png_()
    assert "no d of" in intrinsic_picture(points[:1], 0.82, {}).alt


def test_what_needs_no_move_of_the_model_is_drawn_beside():
    points = [Point(d, {"accuracy": a}, 0.0) for d, a in ((0, 0.6), (100, 0.74))]
    picture = intrinsic_picture(points, 0.82, {}, floors={"probe": 0.758, "head": 0.676})
    drawn = {line.get_label(): line.get_ydata()[0] for line in picture.axes[0].lines}
    assert [drawn["probe"], drawn["head"]] == pytest.approx([75.8, 67.6])
    assert "probe: 75.8 %" in picture.alt

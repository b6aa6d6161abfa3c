"""A path for every run, falling loss to the right, the untuned model's perplexity, and a title that is the verdict."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lora_course.experiments.forgetting import Forgetting
from lora_course.plots.forgetting import forgetting_path
from tests.course.experiments.test_forgetting import made


@pytest.fixture(scope="module")
def found() -> Forgetting:
    """Three methods, the second forgetting half as much as full, the third hardly learning."""
    return made({"full": 0.2, "lora r8": 0.1, "head": 0.01}, lowest={"head": 2.9})


def test_every_run_is_a_path_from_the_start_to_its_end(found):
    axes = forgetting_path(found).axes[0]
    paths = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    assert [list(line.get_xdata()) for line in paths] == [[3.0, 2.0]] * 6 + [[3.0, 2.9]] * 3
    drawn = [y for line in paths for y in line.get_ydata()]
    assert drawn == pytest.approx(found.frame["other_perplexity"].to_list())
    assert axes.xaxis_inverted()
    (before,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert list(before.get_ydata()) == [found.base] * 2
    compared = sorted(line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":")
    assert compared == [2.0, 2.9]


@pytest.mark.parametrize("width", [4.2, 6.4, 9])
def test_names_touch_neither_each_other_nor_the_edge_and_the_title_is_the_finding(found, width: float):
    picture = forgetting_path(found, width=width)
    assert picture._repr_png_().startswith(b"\x89PNG")
    texts = picture.axes[0].texts
    assert [text.get_text() for text in texts] == ["full", "lora r8", "head", "before tuning"]
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert max(box.x1 for box in boxes) <= picture.bbox.x1
    title = " ".join(picture.get_suptitle().split())
    assert title.startswith("lora r8 forgets less than full at a loss of 2.000 on kjv")
    assert picture._suptitle.get_window_extent().x1 <= picture.bbox.x1


def test_the_picture_in_words_says_what_is_drawn_and_every_verdict(found):
    words = forgetting_path(found).alt
    assert "9 runs" in words
    assert "2.000, 2.900" in words
    assert all(str(one) in words for one in found.verdicts.values())

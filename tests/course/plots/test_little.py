"""Every draw is a dot, the title is the verdicts, and names stand beside the lines without touching."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course.experiments.little import Little
from lora_course.plots.little import accuracy_by_examples
from lora_lab import LoRA, Recipe, load_task
from lora_lab.plots.beside import spread
from lora_lab.training.runs import Run

NAMES = ("probe", "lora r8", "head")


@pytest.fixture(scope="module")
def found() -> Little:
    """Three methods on the rows of `rt`, the second far better on all texts."""
    labels, rng = np.array(load_task("rt").test.labels), np.random.default_rng(0)

    def run(share: float) -> Run:
        answers = np.where(rng.random(len(labels)) < share, labels, 1 - labels)
        history = {"step": [], "loss": [], "lr": [], "validation": []}
        metrics = {"accuracy": float((answers == labels).mean())}
        return Run(Recipe("minilm", "rt", LoRA()), metrics, history, 1, 1, 2, 1.0, 1, {}, predictions=answers)

    shares = {(name, size): 0.6 + 0.001 * size / 100 for name in NAMES for size in (50, 100, 8162)}
    shares |= {("lora r8", 8162): 0.8}
    return Little({place: [run(share) for _ in range(4)] for place, share in shares.items()}, "probe", 8162)


def test_every_draw_is_a_dot_and_the_lines_go_through_the_means(found):
    axes = accuracy_by_examples(found).axes[0]
    for name, dots, line in zip(NAMES, axes.collections, axes.lines, strict=True):
        own = found.frame[found.frame["method"] == name]
        assert sorted(y for _, y in dots.get_offsets()) == pytest.approx(sorted(100 * own["accuracy"]))
        assert line.get_ydata() == pytest.approx(100 * own.groupby("examples")["accuracy"].mean())
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50", "100", "all\n8,162"]


@pytest.mark.parametrize("width", [4.2, 6.4, 9])
def test_names_stand_beside_the_lines_and_touch_neither_each_other_nor_the_edge(found, width: float):
    picture = accuracy_by_examples(found, width=width)
    assert picture._repr_png_().startswith(b"\x89PNG")
    boxes = sorted((text.get_window_extent() for text in picture.axes[0].texts), key=lambda box: box.y0)
    assert {text.get_text() for text in picture.axes[0].texts} == set(NAMES)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert max(box.x1 for box in boxes) <= picture.bbox.x1
    title = picture.get_suptitle().replace("\n", " ")
    assert "lora r8 against probe: " in title
    assert "better at all 8,162" in title
    assert picture._suptitle.get_window_extent().x1 <= picture.bbox.x1


def test_the_picture_in_words_says_what_is_drawn_and_every_verdict(found):
    words = accuracy_by_examples(found).alt
    assert "4 dots for each method and number" in words
    assert all(str(one) in words for one in found.verdicts.values())


@given(st.lists(st.floats(-10, 110), min_size=1, max_size=7))
def test_names_are_moved_apart_in_their_order_and_no_further_than_they_must(at):
    places = spread(at, 10, 100)
    ordered = [places[n] for n in sorted(range(len(at)), key=lambda n: at[n])]
    assert all(b - a >= 10 - 1e-9 for a, b in pairwise(ordered))
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in places)
    if all(b - a > 10 for a, b in pairwise(sorted(at))) and min(at) >= 0 and max(at) <= 100:
        assert places == pytest.approx(at)

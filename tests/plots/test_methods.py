"""Pictures of a comparison: every seed, no names on top of each other, titles that say what the verdicts allow."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from lora_lab.plots import GREY
from lora_lab.plots.labels import name_dots
from lora_lab.plots.methods import finding, memory, quality, rate_curves
from tests.comparisons import MIB, ROWS, SEEDS, comparison

LABELS = {row[1] for row in ROWS}
KINDS = {"quality": quality, "rates": rate_curves, "memory": lambda found, _=None: memory(found)}


def named(figure: Any) -> list[Any]:
    """The names in a picture's axes."""
    return [text for text in figure.axes[0].texts if text.get_text() in LABELS]


def overlaps(figure: Any, texts: list[Any]) -> list[tuple[str, str]]:
    FigureCanvasAgg(figure).draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


# ---- what may be said


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("equivalent", "LoRA r8 q,v is equivalent to full fine-tuning within 1.5 points at 0.33 % of the parameters"),
        ("better", "LoRA r8 q,v is better than full fine-tuning, at 0.33 %"),
        ("worse", "Full fine-tuning is better than LoRA r8 q,v, which trains 0.33 %"),
        ("undecided", "LoRA r8 q,v (0.33 % of the parameters) vs full fine-tuning: undecided"),
    ],
)
def test_a_title_says_what_the_verdict_allows_and_no_more(kind: str, said: str):
    found = comparison(kind=kind)
    assert finding(found).startswith(said)
    assert said.split()[0] in quality(found).get_suptitle().replace("\n", " ")


def test_a_second_row_of_a_method_is_another_method():
    """LoRA on other matrices is not taken for the first one, in a title or behind a live curve."""
    found, wide = comparison("lora", "full", kind="worse"), comparison("lora", "full", kind="equivalent")["methods"][0]
    wide |= {"label": "LoRA r8 all-linear", "tried": [{"lr": 1e-2, "validation": 0.5}]}
    both = {**found, "methods": [found["methods"][0], wide, found["methods"][1]]}
    assert finding(both).startswith("Full fine-tuning is better than LoRA r8 q,v")
    lora = next(axes for axes in rate_curves(found, both).axes if axes.get_title().startswith("LoRA r8 q,v"))
    assert all(1e-2 not in line.get_xdata() for line in lora.lines)


def test_without_a_verdict_no_equality_is_claimed():
    assert "no verdict on LoRA against full fine-tuning yet" in finding(comparison("probe", "lora"))
    assert finding(comparison("probe", "lora")).startswith("LoRA r8 q,v has the best mean of 2")
    assert finding({**comparison(), "methods": []}) == "No method has been scored yet"


def test_of_a_language_model_the_lowest_perplexity_is_best():
    found = comparison("head", "lora")
    for row, values in zip(found["methods"], ([30.0, 31.0], [20.0, 21.0]), strict=True):
        row["perplexity"] = {"each": values}
    found["metric"] = "perplexity"
    assert finding(found).startswith("LoRA r8 q,v has the best mean")
    assert "perplexity" in quality(found).axes[0].get_ylabel()
    assert np.max([dots.get_offsets()[:, 1].max() for dots in quality(found).axes[0].collections]) == 31  # no per cent


# ---- quality


def test_every_seed_of_every_method_is_a_dot_at_what_it_trains():
    axes = quality(comparison()).axes[0]
    dots = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
    assert len(dots) == len(ROWS) * len(SEEDS)
    for _, label, mean, trains, *_ in ROWS:
        head = 385 if label == "probe" else 770
        own = dots[dots[:, 0] == trains + head, 1]
        assert sorted(own) == pytest.approx(sorted(100 * (mean + off) for off in SEEDS))
    assert axes.get_xscale() == "log"
    assert "numbers that train, head included" in axes.get_xlabel()
    assert axes.get_ylabel() == "test accuracy (%)"


@pytest.mark.parametrize("reference", [None, comparison()], ids=["alone", "over a reference"])
@pytest.mark.parametrize("seeds", [2, 5])
def test_ten_names_do_not_overlap_and_stay_in_the_axes(reference: Any, seeds: int):
    figure = quality(comparison(seeds=seeds), reference)
    names = named(figure)
    assert len(names) == 10
    assert not overlaps(figure, names)
    frame = figure.axes[0].get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in (text.get_window_extent() for text in names))


def test_names_of_dots_on_one_heap_are_moved_apart():
    figure = quality(comparison("lora"))
    axes = figure.axes[0]
    for old in list(axes.texts):
        old.remove()
    made = name_dots(axes, [(74_498, 81.3)] * 8, [f"method {n}" for n in range(8)])
    assert len(made) == 8
    assert not overlaps(figure, made)


def test_a_reference_is_pale_and_names_what_is_not_live_and_where_it_was_made():
    figure = quality(comparison("probe", "lora"), comparison())
    axes = figure.axes[0]
    assert len(named(figure)) == 10
    grey = [text.get_text() for text in named(figure) if text.get_color() == GREY]
    assert len(grey) == 8
    assert "LoRA r8 q,v" not in grey
    words = axes.get_xlabel().replace("\n", " ")
    assert "pale: the reference (5 seeds of 200 steps, a made-up machine, 2026-01-02)" in words


# ---- rates


def test_each_method_has_its_curve_with_the_chosen_rate_ringed():
    figure = rate_curves(comparison())
    shown = {axes.get_title().split("\n")[0]: axes for axes in figure.axes if axes.get_visible()}
    assert shown.keys() == LABELS - {"probe"}  # which has no rate
    lora = shown["LoRA r8 q,v"]
    own = next(line for line in lora.lines if line.get_linewidth() == 1.6)
    assert list(own.get_xdata()) == [5e-4, 1e-3, 2e-3, 4e-3]
    ring = lora.lines[-1]
    assert ring.get_fillstyle() == "none"
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2e-3, pytest.approx(81.7))
    assert lora.get_xscale() == "log"


def test_a_rate_at_the_edge_is_said_in_the_picture_and_in_words():
    figure = rate_curves(comparison())
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if "edge" in title] == ["prompt 20, random\n0.05, edge"]
    assert "at the edge of the grid: prompt 20, random" in figure.alt
    assert "full fine-tuning: 5e-5 of 4 rates" in figure.alt
    assert "1,000 times that of full fine-tuning" in figure.alt


# ---- costs


def test_a_tower_is_as_high_as_predicted_and_what_was_measured_is_marked():
    found = comparison("probe", "lora", "full")
    found["methods"][1]["predicted_parts"] = {"weights": 200 * MIB, "optimizer": 44 * MIB}
    axes = memory(found).axes[0]
    assert [text.get_text() for text in axes.texts] == ["482", "244", "not\nmodelled"]  # the highest of all first
    heights = [bar.get_height() for bar in axes.patches if bar.get_height()]
    assert heights == [482, 200, 44]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linewidth() == 3] == [1140, 748, 610]
    assert axes.get_ylabel() == "MiB (2^20 bytes)"


def test_large_towers_are_in_gib():
    found = comparison("lora", "full")
    for row in found["methods"]:
        row["predicted_bytes"] *= 100
    assert memory(found).axes[0].get_ylabel() == "GiB (2^30 bytes)"


# ---- all of them


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_is_opaque_wide_enough_and_in_words(kind: str):
    made = KINDS[kind](comparison(), comparison())
    pixels = imread(io.BytesIO(made._repr_png_()))
    assert pixels[..., -1].min() == 1
    assert np.allclose(pixels[0, 0, :3], 1)
    assert pixels[:, :, :3].std() > 0.05
    data, metadata = made._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"] == made.alt
    assert all(label in made.alt for label in LABELS - ({"probe"} if kind == "rates" else set()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_that_failed_among_others_does_no_harm(kind: str):
    found = comparison()
    gaps = {"accuracy": {"mean": None, "each": []}, "against": {}, "tried": [], "error": "no"}
    found["methods"][3] |= gaps | dict.fromkeys(("lr", "trainable", "head", "peak_bytes", "predicted_bytes", "seconds"))
    assert KINDS[kind](found).alt

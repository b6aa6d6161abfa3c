"""Towers stand as high as their bytes, cards' labels do not overlap, and only cards that tell something are drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from lora_lab import FullFineTuning, LoRA, memory
from lora_lab.accounting.gpus import cards, usable
from lora_lab.accounting.units import GIB
from lora_lab.plots import Picture
from lora_lab.plots.sheet import Sheet
from lora_lab.plots.towers import (
    APART,
    STYLES,
    Tower,
    draw_towers,
    lines,
    near,
    peaks_picture,
    spread,
    tower_sheet,
)
from lora_lab.plots.towers import towers_picture as picture

CARDS = lines(cards())


def tower(name: str, gib: float) -> Tower:
    return Tower(name, {"weights": int(gib * GIB)})


def boxes(figure: Picture) -> list:
    """The extents of the cards' labels in pixels."""
    figure.canvas.draw()
    return [label.get_window_extent() for label in figure.axes[0].texts if " GB: " in label.get_text()]


def overlap(extents: list) -> list:
    return [(a, b) for a, b in itertools.combinations(extents, 2) if a.overlaps(b)]


def test_there_is_a_line_for_each_size_of_gpu_at_what_it_leaves_for_tensors():
    assert [line.name for line in CARDS][3:5] == ["24 GB: RTX 3090", "32 GB: RTX 5090"]
    by_size = {card.memory: [] for card in cards() if card.device == "cuda"}
    for card in cards():
        by_size.get(card.memory, []).append(usable(card))
    assert len(CARDS) == len(by_size)
    for line, rooms in zip(CARDS, by_size.values(), strict=True):
        assert line.bytes in rooms
    assert [line.bytes for line in CARDS] == sorted(line.bytes for line in CARDS)


def test_of_the_cards_those_next_to_a_tower_are_drawn():
    chosen = near([tower("a", 18), tower("b", 62), Tower("none")], CARDS)
    assert [line.name.split(":")[0] for line in chosen] == ["16 GB", "24 GB", "48 GB", "80 GB"]
    assert near([tower("tiny", 0.2)], CARDS) == []  # the smallest card would press the tower flat
    assert near([], CARDS) == []
    assert [line.name for line in near([tower("huge", 3000)], CARDS)] == ["192 GB: B200"]


@pytest.mark.parametrize(
    "heights",
    [(61.8, 18, 8.3, 17.9), (515, 140, 45.7, 139.6), (75, 39, 29, 38), (15.1, 14.9), (3000, 800, 250, 180), (9, 9)],
)
def test_labels_of_cards_do_not_overlap_and_stay_in_the_picture(heights: tuple[float, ...]):
    figure = picture([tower(str(i), gib) for i, gib in enumerate(heights)], CARDS, "")
    extents = boxes(figure)
    assert extents
    assert not overlap(extents)
    width, height = figure.canvas.get_width_height()
    assert all(e.x1 <= width and e.y0 >= 0 and e.y1 <= height for e in extents)


@given(st.lists(st.floats(0.05, 700), min_size=1, max_size=5))
def test_any_towers_leave_labels_apart(heights: list[float]):
    chosen = near([tower("", gib) for gib in heights], CARDS)
    top = 1.1 * max([gib * GIB for gib in heights] + [c.bytes for c in chosen])
    moved = spread([c.bytes / top for c in chosen], APART)
    assert all(b - a >= APART - 1e-9 for a, b in itertools.pairwise(moved))
    assert all(-APART < m <= 1 for m in moved)


def test_a_tower_is_as_high_as_its_bytes_and_stacked_in_order():
    estimate = memory("llama-3-8b", LoRA(), batch=1, seq=512)
    (axes,) = picture([Tower("LoRA", estimate.categories), Tower("?")], CARDS, "a finding").axes
    first = axes.patches[: len(STYLES)]
    assert sum(bar.get_height() for bar in first) * GIB == pytest.approx(estimate.peak)
    assert [bar.get_y() for bar in first] == sorted(bar.get_y() for bar in first)
    said = [text.get_text() for text in axes.texts]
    assert said[:2] == ["18.0", "cannot\nbe said"]
    assert said[-1] == "a finding"
    assert axes.get_ylabel().startswith("GiB")


def test_every_category_of_an_estimate_has_a_colour_and_a_hatch_of_its_own():
    found = memory("gpt2", FullFineTuning()).categories.keys() | memory("gpt2", LoRA()).categories.keys()
    assert found <= STYLES.keys()
    assert len({colour for colour, _ in STYLES.values()}) == len({hatch for _, hatch in STYLES.values()}) == len(STYLES)


def test_towers_painted_over_others_are_those_of_a_new_sheet():
    def painted(sheet: Sheet, *towers: Tower) -> bytes:
        return sheet.paint("towers", lambda axes: draw_towers(axes, towers, CARDS, f"{len(towers)} towers"))

    used = tower_sheet()
    assert painted(used, tower("a", 18), tower("b", 62), tower("c", 5)) != painted(used, tower("a", 30))
    assert painted(used, tower("a", 30)) == painted(tower_sheet(), tower("a", 30))


def test_the_picture_is_opaque_and_a_notebook_shows_it(tmp_path):
    path = tmp_path / "towers.png"
    path.write_bytes(picture([tower("a", 18)], CARDS, "x")._repr_png_())
    pixels = imread(path)
    assert pixels[..., -1].min() == 1 if pixels.shape[2] == 4 else True
    assert pixels[:, :, :3].std() > 0.05
    assert np.allclose(pixels[0, 0, :3], 1)


def test_peaks_over_length_name_their_cards_without_overlap():
    figure = peaks_picture([512, 32768], {"full": [62 * GIB, 289 * GIB], "LoRA": [18 * GIB, 206 * GIB]}, CARDS, "t")
    figure.canvas.draw()
    extents = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(extents) >= 5
    assert not overlap(extents)

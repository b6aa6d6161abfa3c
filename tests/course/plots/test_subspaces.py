"""Every picture of what is inside dW has chance in it, and says what it shows."""

from __future__ import annotations

import numpy as np
import pytest

from lora_course.experiments.subspace import (
    amplification,
    factors,
    intruders,
    phi_grid,
    product_factors,
    random_directions,
)
from lora_course.plots.subspaces import amplification_bars, intruder_dots, phi_maps, shared_words, spectra

RNG = np.random.default_rng(5)


def test_phi_is_drawn_beside_chance_and_the_difference():
    u, v = random_directions(40, 3), random_directions(40, 9, seed=1)
    grids = {"same": phi_grid(u, u), "other": phi_grid(u, v)}
    picture = phi_maps(grids, 40)
    shown = [axes for axes in picture.axes if axes.images]
    assert len(shown) == 6
    assert shown[1].get_title() == "chance: max(i, j) / 40"
    assert shown[4].images[0].get_array()[-1, -1] == pytest.approx(9 / 40)
    assert shown[5].images[0].get_array()[-1, -1] == pytest.approx(grids["other"][-1, -1] - 9 / 40)
    assert "more than chance" in picture.get_suptitle().replace("\n", " ")
    assert picture._repr_png_()
    assert "no more than chance" in shared_words(grids["other"], 40)


def test_spectra_have_the_random_matrix_among_them():
    one, noise = (
        product_factors(RNG.standard_normal((30, 2)), RNG.standard_normal((2, 30))),
        RNG.standard_normal((30, 30)),
    )
    picture = spectra({"LoRA": one.values}, factors(noise).values)
    assert [line.get_label() for line in picture.axes[0].lines] == ["LoRA", "random, equal norm"]
    assert [len(line.get_xdata()) for line in picture.axes[0].lines] == [2, 30]
    assert picture.axes[1].lines[0].get_ydata()[-1] == pytest.approx(100)
    assert "LoRA" in picture.alt
    assert picture._repr_png_()


def test_amplification_shows_chance_below_each_bar():
    w, dw = RNG.standard_normal((12, 12)), product_factors(RNG.standard_normal((12, 2)), RNG.standard_normal((2, 12)))
    one = amplification(w, dw, 2)
    picture = amplification_bars({"r = 2": one})
    label = picture.axes[0].get_xticklabels()[0].get_text()
    assert f"chance {one.random_factor:.2g} x" in label
    assert len(picture.axes[0].patches) == 3
    assert picture._repr_png_()


def test_intruders_are_counted_beneath_a_line():
    w = np.diag(np.arange(12.0, 0, -1))
    found = {"one": [intruders(w, np.zeros((12, 12)))], "chance": [intruders(w, 20 * RNG.standard_normal((12, 12)))]}
    picture = intruder_dots(found)
    assert picture.axes[0].get_title() == "one: 0 of 10"
    assert found["chance"][0].count > 0
    assert picture.axes[0].lines[-1].get_ydata()[0] == 0.6
    assert picture._repr_png_()

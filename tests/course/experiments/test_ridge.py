"""How the best rate moves with alpha and rank, found again in runs that were made to move so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lora_course.experiments.ridge import best_rate_slopes
from lora_lab.errors import BadValue


def made(slope: float, seeds: int = 3) -> pd.DataFrame:
    """Runs whose best rate is 2^-9 at alpha 16 and moves by `slope` with alpha, by nothing with rank; and luck."""
    luck = np.random.default_rng(0)
    rows = [
        {
            "alpha": alpha,
            "rank": rank,
            "lr": 2.0**x,
            "accuracy": top - 0.02 * (x + 9 - slope * np.log2(alpha / 16)) ** 2,
        }
        for alpha, top in [(4, 0.78), (16, 0.80), (64, 0.79)]
        for rank in (1, 8)
        for x in np.arange(-13, -5)
        for _ in range(seeds)
    ]
    frame = pd.DataFrame(rows)
    frame["accuracy"] = (frame.accuracy + 0.004 * luck.standard_normal(len(frame))).clip(lower=0.5)
    return frame


@pytest.mark.parametrize("slope", [0.0, -0.5, -1.0])
def test_the_slope_that_was_put_in_is_found_and_lies_in_its_interval(slope: float):
    found = best_rate_slopes(made(slope), draws=200)
    assert found["alpha"].slope == pytest.approx(slope, abs=0.05)
    assert found["alpha"].low < slope < found["alpha"].high
    assert found["rank"].low < 0 < found["rank"].high


def test_collapsed_cells_do_not_move_it():
    frame = made(-0.5)
    collapsed = frame[frame.lr > 2**-7].assign(accuracy=0.5, lr=lambda runs: runs.lr * 64)
    assert (
        best_rate_slopes(pd.concat([frame, collapsed]), draws=2)["alpha"] == best_rate_slopes(frame, draws=2)["alpha"]
    )


def test_one_value_alone_has_no_slope():
    frame = made(0)
    with pytest.raises(BadValue, match="alpha"):
        best_rate_slopes(frame[frame.alpha == 16], ["alpha"])


def test_settings_that_do_not_vary_apart_have_no_slopes():
    frame = made(-0.5)
    with pytest.raises(BadValue, match="rank"):
        best_rate_slopes(frame[frame["rank"] == 8])
    tied = frame[frame["rank"] == 8].assign(rank=lambda runs: runs.alpha / 2)
    with pytest.raises(BadValue, match="told apart"):
        best_rate_slopes(tied)
    assert best_rate_slopes(tied, ["alpha"], draws=20)["alpha"].slope == pytest.approx(-0.5, abs=0.05)


def test_runs_without_a_best_rate_have_no_slope():
    frame = made(-0.5)
    with pytest.raises(BadValue, match="peak"):
        best_rate_slopes(frame.assign(accuracy=1.4 - frame.accuracy), draws=2)


def test_draws_that_open_upward_are_left_out():
    frame = made(0, seeds=2)
    frame["accuracy"] = 0.7 + (frame.accuracy - frame.accuracy.mean()) / 30
    found = best_rate_slopes(frame, ["alpha"], draws=200, rows=200)["alpha"]
    assert found.low < found.high


def two_seeds(luck: np.random.Generator) -> pd.DataFrame:
    """Cells of two seeds; the best rate goes with alpha to the power -0.4."""
    cells = [
        (alpha, 2.0**x, 0.77 - 0.01 * (x + 9 + 0.4 * np.log2(alpha / 16)) ** 2)
        for alpha in (4, 16, 64)
        for x in np.arange(-12.5, -5.5, 0.5)
    ]
    frame = pd.DataFrame([cell for cell in cells for _ in range(2)], columns=["alpha", "lr", "accuracy"])
    return frame.assign(accuracy=frame.accuracy + 0.02 * luck.standard_normal(len(frame)))


def test_the_interval_is_as_wide_as_two_seeds_a_cell_make_it():
    many = [
        best_rate_slopes(two_seeds(np.random.default_rng(i)), ["alpha"], draws=100, rows=10**9)["alpha"]
        for i in range(60)
    ]
    width = np.mean([one.high - one.low for one in many])
    assert 0.85 < width / (2 * 1.96 * np.std([one.slope for one in many])) < 1.15
    assert np.mean([one.low < -0.4 < one.high for one in many]) > 0.8


def test_a_cell_of_one_seed_has_the_spread_of_the_others():
    frame = made(-0.5, seeds=2)
    once = frame.drop_duplicates(["alpha", "rank", "lr"])
    some = once[once.alpha != 16].index.union(frame[frame.alpha == 16].index)
    wide, narrow = (best_rate_slopes(runs, draws=200, rows=10**9)["alpha"] for runs in (frame.loc[some], frame))
    assert wide.high - wide.low > narrow.high - narrow.low
    with pytest.raises(BadValue, match="one seed"):
        best_rate_slopes(once)

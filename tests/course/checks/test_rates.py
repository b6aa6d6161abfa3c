"""The checks of lesson 06: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lora_course import checks
from lora_lab.experiments.grid import alpha_of

# By mean validation 2e-3 is best, by mean test 5e-3, by one run 1e-3, and 1e-2 is worst.
SEEDS = pd.DataFrame(
    {
        "lr": [1e-3, 1e-3, 2e-3, 2e-3, 4e-3, 4e-3, 5e-3, 5e-3, 1e-2, 1e-2],
        "validation_accuracy": [0.84, 0.76, 0.82, 0.83, 0.80, 0.80, 0.81, 0.82, 0.5, 0.5],
        "accuracy": [0.80, 0.80, 0.81, 0.81, 0.80, 0.80, 0.83, 0.82, 0.5, 0.5],
    }
)
RIGHT = {
    "chosen_rate": (2e-3, SEEDS),
    "first_step": (2e-3,),
    "same_rate": (5e-4,),
    "best_error": (lambda s, r: (sum(s[r:] ** 2) / sum(s**2)) ** 0.5,),
    "sqrt_alpha": (16 * 8**0.5,),
}
ROUNDED = [("first_step", 0.002), ("first_step", -2e-3), ("same_rate", np.float64(0.0005)), ("sqrt_alpha", 45.3)]
WRONG = [
    ("chosen_rate", (5e-3, SEEDS), "best on test"),
    ("chosen_rate", (1e-3, SEEDS), "best single run"),
    ("chosen_rate", (1e-2, SEEDS), "validates worst"),
    ("chosen_rate", (4e-3, SEEDS), "another rate has a higher mean"),
    ("chosen_rate", (3e-3, SEEDS), "no run had the rate 0.003"),
    ("chosen_rate", ("2e-3", SEEDS), "a number, not str"),
    ("first_step", (6e-3,), "plain gradient descent"),
    ("first_step", (2e-3 / 3,), "divide once"),
    ("first_step", (0.018,), "below the line"),
    ("first_step", (2e-3 / 9,), "under the root"),
    ("first_step", (2e-4,), "the correction"),
    ("first_step", (3,), "the two threes cancel"),
    ("first_step", (1,), "the ratio of the moments"),
    ("first_step", ("rate",), "a number is wanted"),
    ("same_rate", (8e-3,), "the other way"),
    ("same_rate", (2e-3,), "four times as long"),
    ("same_rate", (1e-3,), "not the root"),
    ("same_rate", (1.25e-4,), "not the square"),
    ("same_rate", (2e-3 / 32,), "cancels"),
    ("same_rate", (4e-3,), "cancels"),
    ("best_error", (lambda s, r: sum(s[r:] ** 2) / sum(s**2),), "share of the energy"),
    ("best_error", (lambda s, r: (sum(s[:r] ** 2) / sum(s**2)) ** 0.5,), "what is kept"),
    ("best_error", (lambda s, r: sum(s[:r] ** 2) / sum(s**2),), "energy kept"),
    ("best_error", (lambda s, r: (sum(s[r + 1 :] ** 2) / sum(s**2)) ** 0.5,), "the next one included"),
    ("best_error", (lambda s, r: (sum(s[r - 1 :] ** 2) / sum(s**2)) ** 0.5,), "the r-th is kept"),
    ("best_error", (lambda s, r: sum(s[r:] ** 2) ** 0.5,), "divide by the length"),
    ("best_error", (lambda s, r: sum(s[r:]) / sum(s),), "square each s"),
    ("best_error", (lambda s, r: (sum(s[r:]) / sum(s)) ** 0.5,), "before the sum"),
    ("best_error", (lambda s, r: s[r] / s[0],), "all of them count"),
    ("best_error", (lambda s, r: 100 * (sum(s[r:] ** 2) / sum(s**2)) ** 0.5,), "not in per cent"),
    ("best_error", (lambda s, r: s[r:] ** 2,), "a list"),
    ("best_error", (lambda s, r: 0.7,), "by hand"),
    ("best_error", (lambda s, r: s[99],), "IndexError"),
    ("sqrt_alpha", (128,), "rule 2r"),
    ("sqrt_alpha", (64,), "alpha = r"),
    ("sqrt_alpha", (16,), "held fixed"),
    ("sqrt_alpha", (5.657,), "the constant c"),
    ("sqrt_alpha", (0.7071,), "multiply by r"),
]


def check(name: str, arguments: tuple) -> checks.Verdict:
    return getattr(checks, f"check_{name}")(*arguments)


@pytest.mark.parametrize(("name", "answer"), ROUNDED)
def test_a_rounded_answer_passes(name: str, answer: float):
    assert check(name, (answer,)).passed is True


@pytest.mark.parametrize("rates", [[1e-3, 2e-3], [2e-3, 4e-3], [2e-3]])
def test_a_best_rate_at_the_edge_of_the_grid_is_right_but_said(rates: list[float]):
    verdict = checks.check_chosen_rate(2e-3, SEEDS[SEEDS.lr.isin(rates)])
    assert verdict.passed is True
    assert "try one beyond" in verdict.words
    assert "beyond" not in checks.check_chosen_rate(2e-3, SEEDS).words


def test_rates_that_tie_are_both_right():
    tied = SEEDS.assign(validation_accuracy=0.8)
    assert all(checks.check_chosen_rate(rate, tied).passed for rate in SEEDS.lr.unique())


def test_the_bound_does_not_give_away_what_rank_7_of_8_misses():
    words = check("best_error", RIGHT["best_error"]).words
    assert "7" not in words
    assert "third" not in words


def test_the_root_rule_is_the_grids():
    assert math.isclose(alpha_of("sqrt", 64), RIGHT["sqrt_alpha"][0])
    assert math.isclose(alpha_of("sqrt", 8), 16)

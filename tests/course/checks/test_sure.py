"""The checks of lesson 02: answers for `test_checks`, and what the right ones rest on."""

import math

import numpy as np
import pandas as pd
import pytest

from lora_course import checks
from lora_course.checks.sure import half_width_or_ours


def table(n: int, only_a: int, only_b: int, both: float = 0.7) -> pd.DataFrame:
    """n rows, so many of them right in one model alone."""
    a, b = np.zeros(n, int), np.zeros(n, int)
    a[:only_a] = b[only_a : only_a + only_b] = 1
    rest = only_a + only_b
    a[rest : rest + int(both * n)] = b[rest : rest + int(both * n)] = 1
    return pd.DataFrame({"a": a, "b": b})


CLOSE = table(2000, 130, 106)  # 11.8% differ, a is 1.2 points ahead
AHEAD = table(2000, 160, 80)  # 12% differ, 4 points
HALF = 1.96 * math.sqrt(0.118 / 2000)
ROWS = 7.84 * 0.118 / 0.01**2
RIGHT = {"half_width": (lambda p, n: 1.96 * math.sqrt(p * (1 - p) / n),), "report": (CLOSE, HALF, "undecided", ROWS)}
UNSOLVED = {"report": (CLOSE, ..., ..., ...)}
WRONG = [
    ("half_width", (lambda p, n: math.sqrt(p * (1 - p) / n),), "one standard error"),
    ("half_width", (lambda p, n: 3.92 * math.sqrt(p * (1 - p) / n),), "from end to end"),
    ("half_width", (lambda p, n: 196 * math.sqrt(p * (1 - p) / n),), "in points"),
    ("half_width", (lambda p, n: 1.96 * p * (1 - p) / n,), "square root first"),
    ("half_width", (lambda p, n: 1.96 * math.sqrt(p * (1 - p)),), "spread of one sentence"),
    ("half_width", (lambda p, n: 1.96 * math.sqrt(p * (1 - p)) / n,), "under the root"),
    ("half_width", (lambda p, n: 0.98 / math.sqrt(n),), "only at p = 0.5"),
    ("report", (CLOSE, 100 * HALF, "undecided", ROWS), "half: that is in points"),
    ("report", (CLOSE, HALF / 1.96, "undecided", ROWS), "half: that is one standard error"),
    ("report", (CLOSE, 2 * HALF, "undecided", ROWS), "half: that is the whole interval"),
    ("report", (CLOSE, 0.0265, "undecided", ROWS), "half: that is for two different tests"),
    ("report", (CLOSE, 0.0186, "undecided", ROWS), "half: that is one model's interval"),
    ("report", (CLOSE, HALF, "better", ROWS), "76.5 beats 75.3 only if"),
    ("report", (CLOSE, HALF, "equivalent", ROWS), "answer with one of better, undecided, worse"),
    ("report", (AHEAD, 1.96 * math.sqrt(0.12 / 2000), "undecided", ROWS), "0 is outside"),
    ("report", (CLOSE, HALF, "undecided", 1.96**2 * 0.118 / 1e-4), "rows: with 1.96 alone"),
    ("report", (CLOSE, HALF, "undecided", 2.8 * 0.118 / 1e-4), "rows: the 1.96 + 0.84 is squared"),
    ("report", (CLOSE, HALF, "undecided", 2000 * (ROWS / 2000) ** 0.5), "rows: the errors' ratio is squared"),
    ("report", (CLOSE, HALF, "undecided", 100 * ROWS), "rows: the share is a fraction"),
    ("report", (CLOSE, HALF, "undecided", ROWS / 1.44), "rows: that is for the gap you saw"),
    ("report", (CLOSE, HALF, "undecided", 7.84 * (0.765 * 0.235 + 0.753 * 0.247) / 1e-4), "rows: that is for two"),
    ("report", (CLOSE.rename(columns={"a": "A"}), HALF, "undecided", ROWS), "needs the columns a and b"),
    ("report", (2 * CLOSE, HALF, "undecided", ROWS), "there are other values"),
]


def test_a_clear_gap_is_better_and_seen_from_the_other_side_worse():
    half, rows = 1.96 * math.sqrt(0.12 / 2000), 7.84 * 0.12 / 1e-4
    assert checks.check_report(AHEAD, half, "Better", rows).passed is True
    assert checks.check_report(AHEAD.rename(columns={"a": "b", "b": "a"}), half, "worse", rows).passed is True


def test_on_the_border_both_words_pass_since_a_resampled_interval_may_be_narrower():
    border, half = table(2000, 120, 91), 1.96 * math.sqrt(211 / 2000 / 2000)
    for word in ("better", "undecided"):
        assert checks.check_report(border, half, word, 7.84 * 0.1055 / 1e-4).passed


def test_the_hint_is_that_of_the_first_wrong_part():
    for _ in range(3):
        assert "is 0 inside" in checks.check_report(CLOSE, HALF, "better", 1).hint
    assert "** 0.5" in checks.check_report(CLOSE, 1, "better", 1).hint
    assert "four times the rows" in checks.check_report(CLOSE, HALF, "undecided", 1).hint


def test_a_resampled_half_is_right_and_so_are_the_rows_that_follow_from_it():
    rng, differences = np.random.default_rng(1), (CLOSE.a - CLOSE.b).to_numpy()
    half = 1.96 * np.std([rng.choice(differences, 2000).mean() for _ in range(2000)])
    assert half != HALF
    assert checks.check_report(CLOSE, half, "undecided", 2000 * (2.8 / 1.96 * half / 0.01) ** 2).passed


def test_a_function_that_is_not_right_yet_is_replaced_and_the_reader_is_told(capsys: pytest.CaptureFixture[str]):
    assert half_width_or_ours(RIGHT["half_width"][0]) is RIGHT["half_width"][0]
    assert half_width_or_ours(lambda p, n: None)(0.5, 100) == pytest.approx(0.098)
    assert capsys.readouterr().out.count("uses ours") == 1

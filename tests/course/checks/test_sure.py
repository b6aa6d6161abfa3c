import math

import numpy as np
import pandas as pd
import pytest

from lora_course import checks
from lora_course.checks.sure import half_width_or_ours


def table(n: int, only_a: int, only_b: int) -> pd.DataFrame:
    """Return n rows: this many are right in one model alone, and 70% in both."""
    counts = {(1, 0): only_a, (0, 1): only_b, (1, 1): int(0.7 * n)}
    rows = [pair for pair, count in counts.items() for _ in range(count)]
    return pd.DataFrame(rows + [(0, 0)] * (n - len(rows)), columns=["a", "b"])


CLOSE = table(2000, 130, 106)  # the models differ on 11.8%, and a is 1.2 points ahead
AHEAD = table(2000, 160, 80)  # 12% and 4 points
HALF, HALF_AHEAD = (1.96 * math.sqrt(share / 2000) for share in (0.118, 0.12))
ROWS, ROWS_AHEAD = 7.84 * 0.118 / 0.01**2, 7.84 * 0.12 / 0.01**2
NEARLY_ZERO = table(2000, 120, 91), 1.96 * math.sqrt(211 / 2000 / 2000)  # a resampled interval may exclude 0
RIGHT = [
    ("half_width", (lambda p, n: 1.96 * math.sqrt(p * (1 - p) / n),)),
    ("report", (CLOSE, HALF, "undecided", ROWS)),
    ("report", (AHEAD, HALF_AHEAD, "Better", ROWS_AHEAD)),
    ("report", (AHEAD.rename(columns={"a": "b", "b": "a"}), HALF_AHEAD, "worse", ROWS_AHEAD)),
    ("report", (*NEARLY_ZERO, "better", 7.84 * 0.1055 / 1e-4)),
    ("report", (*NEARLY_ZERO, "undecided", 7.84 * 0.1055 / 1e-4)),
]
UNSOLVED = [("report", (CLOSE, ..., ..., ...), "replace the ...")]
WRONG = [
    ("half_width", (lambda p, n: math.sqrt(p * (1 - p) / n),), "one standard error"),
    ("half_width", (lambda p, n: 2 * math.sqrt(p * (1 - p) / n),), "that uses 2"),
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
    ("report", (CLOSE, HALF, "better", ROWS), "76.5 beats 75.3 only if the whole interval of a - b is above 0"),
    ("report", (AHEAD, HALF_AHEAD, "undecided", ROWS), "0 is outside"),
    ("report", (CLOSE, HALF, "undecided", 1.96**2 * 0.118 / 1e-4), "rows: with 1.96 alone"),
    ("report", (CLOSE, HALF, "undecided", 2.8 * 0.118 / 1e-4), "rows: square 1.96 + 0.84"),
    ("report", (CLOSE, HALF, "undecided", 2000 * (ROWS / 2000) ** 0.5), "rows: square the ratio of errors"),
    ("report", (CLOSE, HALF, "undecided", 100 * ROWS), "rows: the share is a fraction"),
    ("report", (CLOSE, HALF, "undecided", ROWS / 1.44), "rows: that is for the gap you saw"),
    ("report", (CLOSE, HALF, "undecided", 7.84 * (0.765 * 0.235 + 0.753 * 0.247) / 1e-4), "rows: that is for two"),
    ("report", (CLOSE.rename(columns={"a": "A"}), HALF, "undecided", ROWS), "needs the columns a and b"),
    ("report", (2 * CLOSE, HALF, "undecided", ROWS), "there are other values"),
]


def test_hint_is_for_the_first_wrong_part():
    for _ in range(3):
        assert "is 0 between" in checks.check_report(CLOSE, HALF, "better", 1).hint
    assert "** 0.5" in checks.check_report(CLOSE, 1, "better", 1).hint
    assert "four times the rows" in checks.check_report(CLOSE, HALF, "undecided", 1).hint


def test_report_accepts_a_resampled_interval():
    rng, differences = np.random.default_rng(1), (CLOSE.a - CLOSE.b).to_numpy()
    half = 1.96 * np.std([rng.choice(differences, 2000).mean() for _ in range(2000)])
    assert half != HALF
    assert checks.check_report(CLOSE, half, "undecided", 2000 * (2.8 / 1.96 * half / 0.01) ** 2).passed


def test_wrong_function_is_replaced_with_a_note(capsys: pytest.CaptureFixture[str]):
    (right,) = RIGHT[0][1]
    assert half_width_or_ours(right) is right
    assert half_width_or_ours(lambda p, n: None)(0.5, 100) == pytest.approx(0.098)
    assert capsys.readouterr().out.count("uses ours") == 1

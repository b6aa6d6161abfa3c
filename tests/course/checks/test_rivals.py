"""The checks of lesson 08: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

import pytest

from lora_course import checks
from tests.comparisons import comparison

FOUND = comparison()
RIGHT = {
    "tuned_rate": (2e-3, "b", FOUND),
    "added_share": (74.07,),
    "not_equal": ("c",),
}
WRONG = [
    ("tuned_rate", (1e-3, "b", FOUND), "at another rate more"),
    ("tuned_rate", (3e-3, "b", FOUND), "rates tried: 0.0005, 0.001, 0.002, 0.004"),
    ("tuned_rate", ("2e-3", "b", FOUND), "a number, not str"),
    ("tuned_rate", (2e-3, "a", FOUND), "noisier"),
    ("tuned_rate", (2e-3, "c", FOUND), "looking is choosing"),
    ("tuned_rate", (2e-3, "x", FOUND), "answer why with one of a, b, c"),
    ("tuned_rate", (2e-3, "b", comparison("probe")), "was not tried"),
    ("added_share", (42.55,), "share of the longer row"),
    ("added_share", (174,), "the new length"),
    ("added_share", (0.74,), "asked are per cent"),
    ("added_share", (20,), "number of tokens"),
    ("added_share", (135,), "the other way round"),
    ("added_share", (7680,), "numbers that train"),
    ("added_share", ("many",), "a number is wanted"),
    ("not_equal", ("a",), "may be luck"),
    ("not_equal", ("B)",), "whatever the truth is"),
    ("not_equal", ("yes",), "one of a, b, c"),
]


@pytest.mark.parametrize("percent", [74, 74.1, 75])
def test_a_rounded_share_passes(percent: float):
    assert checks.check_added_share(percent).passed is True

"""The checks of lesson 15: a right answer passes, a wrong one is told why, an unsolved one waits."""

from __future__ import annotations

import pytest

from lora_lab import checks
from tests.experiments.test_claims import TEXT

RIGHT = {
    "word": ("undecided", True, True, None),
    "turned": ("8", "true", {"gpu_gb": 48}),
    "own_card": (TEXT, {"bits": 16}),
}
WRONG = [
    ("word", ("true", True, None), "in every case"),
    ("word", ("perhaps", True, None), "one of true, false"),
    ("word", ("undecided", True, False), "no case speaks against it"),
    ("turned", ("8", "true", {"bits": 3}), "then it is false"),
    ("turned", ("8", "true", {"gpu": 48}), "nearest: gpu_gb"),
    ("turned", ("8", "true", {"gpu_gb": 48, "bits": 2}), "change one premise"),
    ("turned", ("8", "true", "gpu_gb"), "change one premise"),
    ("own_card", (TEXT, {"rank": 4}), "still true"),
    ("own_card", (TEXT, {"ranks": 4}), "nearest: rank"),
    ("own_card", (TEXT, "rank"), "write what you change"),
    ("own_card", ("statement: mine", {"rank": 4}), "lacks the field 'id'"),
    ("own_card", (TEXT.replace("limits: memory only", "limits: ''"), {"bits": 16}), "what it does not show"),
]


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes_and_an_unsolved_one_waits(name):
    check = getattr(checks, f"check_{name}")
    assert check(*RIGHT[name]).passed is True
    unsolved = (..., *RIGHT[name][1:]) if name == "word" else (*RIGHT[name][:-1], ...)
    assert check(*unsolved).passed is None


@pytest.mark.parametrize(("name", "answers", "words"), WRONG)
def test_a_wrong_answer_is_told_why(name, answers, words):
    verdict = getattr(checks, f"check_{name}")(*answers)
    assert verdict.passed is False
    assert words in verdict.words

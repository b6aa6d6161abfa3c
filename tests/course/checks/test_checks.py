"""The checks pass a right answer, explain the wrong ones that students give, and wait for an unsolved one."""

from __future__ import annotations

import math
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest
import torch

from lora_course import checks
from lora_course.checks.verdict import choice, number
from lora_course.receipts import Check, Receipt
from tests.course import checks as tested

LESSONS = [
    import_module(f"{tested.__name__}.{one.name}")
    for one in iter_modules(tested.__path__)
    if f"{tested.__name__}.{one.name}" != __name__
]
RIGHT = {name: answer for lesson in LESSONS for name, answer in lesson.RIGHT.items()}
WRONG = [case for lesson in LESSONS for case in lesson.WRONG]
OPEN = {name: answer for lesson in LESSONS for name, answer in getattr(lesson, "UNSOLVED", {}).items()}


def unsolved(name: str, nothing: object) -> tuple:
    """An exercise as it is handed out: its first answer open, where the lesson's own table has no other."""
    first, *others = RIGHT[name]
    return OPEN.get(name, ((lambda *given: nothing) if callable(first) else nothing, *others))


def check(name: str, arguments: tuple) -> checks.Verdict:
    return getattr(checks, f"check_{name}")(*arguments)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_passes_and_hears_why(name: str):
    verdict = check(name, RIGHT[name])
    assert repr(verdict).startswith("right: ")
    assert len(verdict.words) > 20


@pytest.mark.parametrize("number", [np.int64(4224), np.float32(4224), 4224.0])
def test_a_number_of_any_kind_is_a_number(number: float):
    assert check("pair_numbers", (number,)).passed
    assert check("energy", (lambda s, r: torch.tensor((s[:r] ** 2).sum() / (s**2).sum()),)).passed


@pytest.mark.parametrize("answer", ["b)", "B.", "(b)", " b "])
def test_a_letter_may_come_with_its_punctuation(answer: str):
    assert choice(answer, "b", {"a": "no", "b": "yes"}).passed


@pytest.mark.parametrize("nothing", [None, ...])
@pytest.mark.parametrize("name", RIGHT)
def test_an_unsolved_exercise_is_not_yet_solved_and_no_error(name: str, nothing: object):
    assert repr(check(name, unsolved(name, nothing))).startswith("not yet: ")


@pytest.mark.parametrize(("name", "arguments", "why"), WRONG)
def test_a_wrong_answer_hears_what_is_wrong(name: str, arguments: tuple, why: str):
    verdict = check(name, arguments)
    assert verdict.passed is False
    assert why in verdict.words


def test_every_check_is_tested():
    assert {f"check_{name}" for name in RIGHT} == {name for name in checks.__all__ if name.startswith("check_")}


def test_a_hint_is_given_where_it_is_nearer_than_the_right_answer_and_nearer_than_any_other():
    """Each hint's own number lies within two hundredths of the answer, and of the other hint."""
    wrong = {101: "one too many", 102: "two too many"}
    assert [number(given, 100, wrong, "why", fallback="no").words for given in (100.4, 100.6, 101.4, 101.6)] == [
        "no", "one too many", "one too many", "two too many",
    ]  # fmt: skip


def test_each_wrong_answer_is_given_the_next_hint_and_the_tries_up_to_the_right_one_are_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("lora_course.checks.verdict.CURRENT", mine := Receipt("04"))
    for answer, hint in ((..., ""), (1, "Hint 1 of 3"), (2, "Hint 2"), (..., ""), (3, "Hint 3"), (4, "Hint 3")):
        words = repr(checks.check_peak(lambda tokens, answer=answer: answer))
        assert words.partition("\n")[2].startswith(hint) if hint else "\n" not in words
    assert mine.checks == {"peak": Check(False, 4)}
    for peak in (*RIGHT["peak"], lambda tokens: 5):
        checks.check_peak(peak)
    assert mine.checks == {"peak": Check(True, 5)}


def test_an_answer_that_is_rounded_to_three_figures_is_right():
    said = [number(given, 4.12695, {4.125: "nearly"}, "why").words for given in (4.13, 4.12)]
    assert said == ["why", "nearly"]


@pytest.mark.parametrize("number", [10**400, math.inf, math.nan, -(10**400)], ids=["large", "inf", "nan", "low"])
def test_a_number_that_no_float_can_hold_is_a_wrong_one(number: float):
    assert "a finite number" in check("published", (number, 1, "noise", "large")).words
    assert check("ranks", (number, 5)).passed is False
    assert check("energy", (lambda s, r: number,)).passed is False


def squares_in_place(s, r):
    s *= s
    return s[:r].sum() / s.sum()


def mixes_in_place(x, W, A, B, scaling, which):
    B *= scaling
    return x @ W.T + (B[which] @ A[which] @ x[:, :, None])[:, :, 0]


@pytest.mark.parametrize(("name", "answer"), [("energy", squares_in_place), ("mixed_batch", mixes_in_place)])
def test_what_a_function_does_to_its_arguments_does_not_move_the_right_answer(name: str, answer):
    assert check(name, (answer,)).passed is True

"""The checks pass a right answer, explain the wrong ones that students give, and wait for an unsolved one."""

import math
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest
import torch

from lora_course import checks
from lora_course.checks.verdict import Choice, Number
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
def test_right_wrong_and_open_answers_each_hear_why(name: str):
    verdict = check(name, RIGHT[name])
    assert repr(verdict).startswith("right: ")
    assert len(verdict.words) > 20
    for nothing in (None, ...):
        assert repr(check(name, unsolved(name, nothing))).startswith("not yet: ")
    wrong = [(arguments, why) for other, arguments, why in WRONG if other == name]
    assert wrong
    for arguments, why in wrong:
        verdict = check(name, arguments)
        assert (verdict.passed, why in verdict.words) == (False, True), f"{verdict}, not {why}"


def test_every_check_is_tested():
    assert {f"check_{name}" for name in RIGHT} == {name for name in checks.__all__ if name.startswith("check_")}


def test_a_number_of_any_kind_is_a_number_and_one_that_no_float_can_hold_a_wrong_one():
    for number in (np.int64(4224), np.float32(4224), 4224.0):
        assert check("pair_numbers", (number,)).passed
    assert check("energy", (lambda s, r: torch.tensor((s[:r] ** 2).sum() / (s**2).sum()),)).passed
    for number in (10**400, math.inf, math.nan, -(10**400)):
        assert "a finite number" in check("published", (number, 1, "noise", "large")).words
        assert check("energy", (lambda s, r, number=number: number,)).passed is False


def test_a_word_may_come_with_its_punctuation():
    choice = Choice(["b", "QLoRA"], {"a": "no"}, "yes")
    assert all(choice.judge(answer).passed for answer in ("b)", "B.", "(b)", " b ", "qlora"))
    assert [choice.judge(answer).words for answer in ("A:", 3)] == ["no", "answer with one of QLoRA, a, b, not 3"]


def test_a_hint_is_given_where_it_is_nearer_than_the_right_answer_and_nearer_than_any_other():
    """Each hint's own number lies within two hundredths of the answer, and of the other hint."""
    right = Number(100, {100: "no mistake here", 101: "one too many", 102: "two too many"}, "why", fallback="no")
    assert [right.judge(given).words for given in (100, 100.4, 100.6, 101.4, 101.6)] == [
        "why", "no", "one too many", "one too many", "two too many",
    ]  # fmt: skip
    rounded = Number(4.12695, {4.125: "nearly"}, "why")
    assert [rounded.judge(given).words for given in (4.13, 4.12)] == ["why", "nearly"]  # three figures


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


def squares_in_place(s, r):
    s *= s
    return s[:r].sum() / s.sum()


def mixes_in_place(x, W, A, B, scaling, which):
    B *= scaling
    return x @ W.T + (B[which] @ A[which] @ x[:, :, None])[:, :, 0]


def test_what_a_function_does_to_its_arguments_does_not_move_the_right_answer():
    assert check("energy", (squares_in_place,)).passed is True
    assert check("mixed_batch", (mixes_in_place,)).passed is True

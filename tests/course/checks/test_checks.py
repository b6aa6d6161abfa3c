"""Tests of the checks: verdicts on right, wrong and unsolved answers; numbers, choices, hints and counted tries.

The other modules of this folder list the answers:

    RIGHT      [(check, arguments)]
    WRONG      [(check, arguments, part of the reply)]
    UNSOLVED   the same; placeholders are tested for every check
"""

import math
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from lora_course import checks
from lora_course.checks.verdict import Choice, Number
from lora_course.receipts import Check, Receipt

FILES = [path for path in sorted(Path(__file__).parent.glob("test_*.py")) if path != Path(__file__)]
MODULES = [import_module(f"{__package__}.{path.stem}") for path in FILES]
RIGHT = [row for module in MODULES for row in module.RIGHT]
WRONG = [row for module in MODULES for row in module.WRONG]
UNSOLVED = [row for module in MODULES for row in getattr(module, "UNSOLVED", [])]
NAMES = dict.fromkeys(name for name, _ in RIGHT)


def check(name: str, arguments: tuple) -> checks.Verdict:
    return getattr(checks, f"check_{name}")(*arguments)


@pytest.mark.parametrize("name", NAMES)
def test_right_wrong_and_unsolved_answers(name: str):
    right = [arguments for other, arguments in RIGHT if other == name]
    for arguments in right:
        verdict = check(name, arguments)
        assert repr(verdict).startswith("right: ")
        assert len(verdict.words) > 20
    first, *rest = right[0]
    for placeholder in (None, ...) if name != "report" else ():  # its first argument is a given table
        answer = (lambda *args, value=placeholder: value) if callable(first) else placeholder
        assert repr(check(name, (answer, *rest))).startswith("not yet: ")
    assert name in {row[0] for row in WRONG}
    for passed, rows in ((False, WRONG), (None, UNSOLVED)):
        for arguments, reply in ((arguments, reply) for other, arguments, reply in rows if other == name):
            verdict = check(name, arguments)
            assert verdict.passed is passed
            assert reply in verdict.words


def test_every_check_is_tested():
    assert {f"check_{name}" for name in NAMES} == {name for name in checks.__all__ if name.startswith("check_")}


def test_numbers_of_any_type_are_accepted_and_must_be_finite():
    for number in (np.int64(4224), np.float32(4224), 4224.0, np.array(4224), torch.tensor(4224)):
        assert check("pair_numbers", (number,)).passed
    assert check("energy", (lambda s, r: torch.tensor((s[:r] ** 2).sum() / (s**2).sum()),)).passed
    for number in (10**400, math.inf, math.nan, -(10**400)):
        assert "a finite number" in check("pair_numbers", (number,)).words
        assert "a finite number" in check("published", (number, 1, "noise", "large")).words
        assert check("energy", (lambda s, r, number=number: number,)).passed is False


def test_choice_ignores_case_and_punctuation():
    choice = Choice(["b", "QLoRA"], {"a": "no"}, "yes")
    assert all(choice.judge(answer).passed for answer in ("b)", "B.", "(b)", " b ", "qlora"))
    assert choice.judge("A:").words == "no"
    assert choice.judge(3).words == "answer with one of QLoRA, a, b, not 3"


def test_number_replies_with_the_nearest_hint():
    number = Number(100, {100: "ignored", 101: "one too many", 102: "two too many"}, "why", fallback="no")
    replies = {100: "why", 100.4: "no", 100.6: "one too many", 101.4: "one too many", 101.6: "two too many"}
    assert {answer: number.judge(answer).words for answer in replies} == replies
    close_hint = Number(4.12695, {4.125: "nearly"}, "why")
    assert close_hint.judge(4.13).words == "why"  # rounded to three figures
    assert close_hint.judge(4.12).words == "nearly"


def test_wrong_tries_are_counted_and_get_the_next_hint(monkeypatch: pytest.MonkeyPatch):
    receipt = Receipt("04")
    monkeypatch.setattr("lora_course.checks.verdict.CURRENT", receipt)
    for answer, hint in ((..., ""), (1, "Hint 1 of 3"), (2, "Hint 2"), (..., ""), (3, "Hint 3"), (4, "Hint 3")):
        shown = repr(checks.check_peak(lambda tokens, answer=answer: answer)).partition("\n")[2]
        assert shown.startswith(hint)
        assert bool(shown) == bool(hint)
    assert receipt.checks == {"peak": Check(False, 4)}
    for peak in (dict(RIGHT)["peak"][0], lambda tokens: 5):
        checks.check_peak(peak)
    assert receipt.checks == {"peak": Check(True, 5)}  # tries after the right answer don't count


def test_functions_may_change_their_arguments_in_place():
    def energy(s, r):
        s *= s
        return s[:r].sum() / s.sum()

    def mixed_batch(x, W, A, B, scaling, which):
        B *= scaling
        return x @ W.T + (B[which] @ A[which] @ x[:, :, None])[:, :, 0]

    assert checks.check_energy(energy).passed
    assert checks.check_mixed_batch(mixed_batch).passed

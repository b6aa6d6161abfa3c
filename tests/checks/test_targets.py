"""The checks of lesson 07."""

from __future__ import annotations

import pytest

from lora_lab import LoRA, checks, params


def test_the_right_ranks_are_those_that_the_accountant_counts():
    assert checks.check_equal_budget(18, 4).passed is True
    counts = {params("minilm", LoRA(r, targets=t)).trainable for t, r in (("q,v", 18), ("all-linear", 4))}
    assert counts == {6 * 27_648}


@pytest.mark.parametrize(
    ("qv", "everything", "why"),
    [
        (36, 4, "there are two matrices"),
        (18, 6, "384 + 1536"),
        (18, 9, "two more"),
        (18, 27648 / 4992, "five matrices"),
        (4, 18, "other way round"),
        (36.0, 4, "each has both A and B"),
        (27648 / 294912, 4, "whole matrices"),
        (5, 5, "divide the budget"),
        ("18", 4, "two numbers"),
    ],
)
def test_a_wrong_rank_hears_why(qv, everything, why):
    verdict = checks.check_equal_budget(qv, everything)
    assert verdict.passed is False
    assert why in verdict.words


@pytest.mark.parametrize(("answer", "passed"), [("c", True), ("C)", True), ("a", False), ("b", False), ("x", False)])
def test_one_pair(answer, passed):
    assert checks.check_one_pair(answer).passed is passed


def test_unsolved_is_not_yet():
    assert checks.check_equal_budget(..., ...).passed is None
    assert checks.check_one_pair(...).passed is None

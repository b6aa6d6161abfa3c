"""The checks of lesson 14."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from lora_lab import LoRA, checks, params
from lora_lab.experiments import paper


def test_the_count_is_the_labs_own():
    assert checks.check_gpt2_count(params("gpt2-medium", LoRA(rank=4)).trainable).passed is True


def test_without_rte_follows_from_the_table():
    table = paper.table("table2")
    tasks = ["MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "STS-B"]
    lora, full = (table.row(model="RoBERTa-base", method=method) for method in ("LoRA", "FT"))
    apart = np.mean([lora[task] - full[task] for task in tasks])
    assert checks.check_without_rte(float(apart)).passed is True
    assert checks.check_without_rte(-0.11).passed is True


def test_luck_is_counted():
    alike = [coins for coins in product((0, 1), repeat=5) if len(set(coins)) == 1]
    assert checks.check_luck(len(alike) / 2**5).passed is True


@pytest.mark.parametrize(
    ("check", "answer", "why"),
    [
        ("check_gpt2_count", 196_608, "q and v are two"),
        ("check_gpt2_count", 350_000, "printed figure"),
        ("check_gpt2_count", "many", "a number is wanted"),
        ("check_without_rte", 0.114, "other way round"),
        ("check_without_rte", 0.89, "leave its column out"),
        ("check_without_rte", -0.8, "divide by seven"),
        ("check_beforehand", "a", "undecided"),
        ("check_beforehand", "c", "beforehand"),
        ("check_beforehand", "e", "one of a, b, c, d"),
        ("check_luck", 1 / 32, "all tails"),
        ("check_luck", 0.125, "four seeds"),
        ("check_luck", 6.25, "per cent"),
    ],
)
def test_wrong_answers_hear_why(check, answer, why):
    verdict = getattr(checks, check)(answer)
    assert verdict.passed is False
    assert why in verdict.words


@pytest.mark.parametrize("check", ["check_gpt2_count", "check_without_rte", "check_beforehand", "check_luck"])
def test_unsolved_is_not_yet(check):
    assert getattr(checks, check)(...).passed is None
    assert checks.check_beforehand("b").passed is True

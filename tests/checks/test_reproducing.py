"""The checks of lesson 14."""

from __future__ import annotations

import numpy as np
import pytest

from lora_lab import LoRA, checks, params
from lora_lab.experiments import paper
from lora_lab.experiments.subspace import phi_grid, random_directions


def test_the_count_is_the_labs_own():
    assert checks.check_gpt2_count(params("gpt2-medium", LoRA(rank=4)).trainable).passed is True


def test_without_rte_follows_from_the_table():
    table = paper.table("table2")
    tasks = ["MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "STS-B"]
    lora, full = (table.row(model="RoBERTa-base", method=method) for method in ("LoRA", "FT"))
    apart = np.mean([lora[task] - full[task] for task in tasks])
    assert checks.check_without_rte(float(apart)).passed is True
    assert checks.check_without_rte(-0.11).passed is True


def test_chance_is_what_random_directions_share():
    draws = [phi_grid(random_directions(384, 8, n), random_directions(384, 64, 99 + n))[-1, -1] for n in range(20)]
    assert abs(np.mean(draws) - 64 / 384) < 0.01
    assert checks.check_chance(64 / 384).passed is True


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
        ("check_chance", 64 / 12288, "GPT-3"),
        ("check_chance", 8 / 384, "larger counts"),
        ("check_chance", 16.67, "per cent"),
    ],
)
def test_wrong_answers_hear_why(check, answer, why):
    verdict = getattr(checks, check)(answer)
    assert verdict.passed is False
    assert why in verdict.words


@pytest.mark.parametrize("check", ["check_gpt2_count", "check_without_rte", "check_beforehand", "check_chance"])
def test_unsolved_is_not_yet(check):
    assert getattr(checks, check)(...).passed is None
    assert checks.check_beforehand("b").passed is True

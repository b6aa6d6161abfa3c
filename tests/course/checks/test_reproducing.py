"""The checks of lesson 14: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

from itertools import product

import numpy as np

from lora_course import checks, paper
from lora_lab import LoRA, params

RIGHT = {"gpt2_count": (393_216,), "without_rte": (-0.11,), "beforehand": ("b",), "luck": (1 / 16,)}
WRONG = [
    ("gpt2_count", (196_608,), "q and v are two"),
    ("gpt2_count", (350_000,), "printed figure"),
    ("gpt2_count", ("many",), "give a number"),
    ("without_rte", (0.114,), "other way round"),
    ("without_rte", (0.89,), "leave its column out"),
    ("without_rte", (-0.8,), "divide by seven"),
    ("without_rte", (3,), "below zero"),
    ("without_rte", (-0.12,), "1.05 times too large"),
    ("beforehand", ("a",), "undecided"),
    ("beforehand", ("c",), "beforehand"),
    ("beforehand", ("e",), "one of a, b, c, d"),
    ("luck", (1 / 32,), "all tails"),
    ("luck", (0.125,), "four seeds"),
    ("luck", (6.25,), "per cent"),
    ("luck", (0.0125,), "5 times too small"),
]


def test_the_count_is_the_labs_own():
    assert checks.check_gpt2_count(params("gpt2-medium", LoRA(rank=4)).trainable).passed is True


def test_without_rte_follows_from_the_table():
    table = paper.table("table2")
    tasks = ["MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "STS-B"]
    lora, full = (table.row(model="RoBERTa-base", method=method) for method in ("LoRA", "FT"))
    apart = np.mean([lora[task] - full[task] for task in tasks])
    assert checks.check_without_rte(float(apart)).passed is True


def test_luck_is_counted():
    alike = [coins for coins in product((0, 1), repeat=5) if len(set(coins)) == 1]
    assert checks.check_luck(len(alike) / 2**5).passed is True

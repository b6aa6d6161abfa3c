"""The checks of lesson 07: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

from lora_lab import LoRA, params

RIGHT = {"equal_budget": (18, 4), "one_pair": ("c",)}
WRONG = [
    ("equal_budget", (36, 4), "there are two matrices"),
    ("equal_budget", (18, 6), "384 + 1536"),
    ("equal_budget", (18, 9), "two more"),
    ("equal_budget", (18, 27648 / 4992), "five matrices"),
    ("equal_budget", (4, 18), "other way round"),
    ("equal_budget", (36.0, 4), "each has both A and B"),
    ("equal_budget", (27648 / 294912, 4), "whole matrices"),
    ("equal_budget", (5, 5), "divide the budget"),
    ("equal_budget", ("18", 4), "two numbers"),
    ("one_pair", ("a",), "a difference needs about twice its own"),
    ("one_pair", ("b",), "overlapping bars"),
    ("one_pair", ("x",), "one of a, b, c"),
]


def test_the_right_ranks_are_those_that_the_accountant_counts():
    counts = {params("minilm", LoRA(r, targets=t)).trainable for t, r in (("q,v", 18), ("all-linear", 4))}
    assert counts == {6 * 27_648}

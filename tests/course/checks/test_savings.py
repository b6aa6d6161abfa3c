"""The checks of lesson 03: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lora_course import checks
from lora_lab import LoRA, params

RIGHT = {
    "break_even_rank": (lambda i, o: i * o / (i + o),),
    "qv_count": (16_384_000,),
    "times_fewer": (140.4,),
    "file_size": (414.2, 395.0),
    "storage": (lambda n, base, adapter: base + n * adapter,),
}
UNSOLVED = {
    "break_even_rank": (lambda i, o: None,),
    "qv_count": (...,),
    "times_fewer": (None,),
    "file_size": (414.2, ...),
    "storage": (lambda n, base, adapter: ...,),
}
WRONG = [
    ("break_even_rank", (lambda i, o: i / 2,), "square weights only"),
    ("break_even_rank", (lambda i, o: o / 2,), "square weights only"),
    ("break_even_rank", (lambda i, o: min(i, o) / 2,), "half the smaller side is right for square"),
    ("break_even_rank", (lambda i, o: (i + o) / 4,), "square weights only"),
    ("break_even_rank", (lambda i, o: math.sqrt(i * o) / 2,), "square weights only"),
    ("break_even_rank", (min,), "largest rank"),
    ("break_even_rank", (lambda i, o: (i + o) / (i * o),), "other way round"),
    ("break_even_rank", (lambda i, o: i * o / (2 * (i + o)),), "no 2 is left over"),
    ("break_even_rank", (lambda i, o: math.floor(i * o / (i + o)),), "cut off as a whole number: it need not be one"),
    ("break_even_rank", (lambda i, o: int(i * o / (i + o)),), "do not round or cut it off"),
    ("break_even_rank", (lambda i, o: round(i * o / (i + o)),), "nearly, but rounded as"),
    ("break_even_rank", (lambda i, o: math.ceil(i * o / (i + o)),), "rounded up"),
    ("break_even_rank", (lambda i, o: 2 * i * o / (i + o),), "nothing is doubled"),
    ("break_even_rank", (lambda i, o: (i + o) / 2,), "the mean of the two sides"),
    ("break_even_rank", (lambda i, o: max(i, o) / 2,), "half the larger side is right for square"),
    ("break_even_rank", (lambda i, o: 7,), "try 1000 x 10"),
    ("break_even_rank", (lambda i, o: i / 0,), "ZeroDivisionError"),
    ("qv_count", (204_800,), "has 80"),
    ("qv_count", (2_048_000,), "rank 1"),
    ("qv_count", (20_971_520,), "took v for a square"),
    ("qv_count", (10_485_760,), "q without v"),
    ("qv_count", (5_898_240,), "v without q"),
    ("qv_count", (6_039_797_760,), "frozen weights"),
    ("qv_count", (32_768_000,), "twice too many"),
    ("qv_count", (6_553_600,), "q has 8,192 outputs"),
    ("qv_count", (16.4e6,), "nearly: that is rounded"),
    ("qv_count", (80 * 2 * 8 * (8192 + 8192 + 1024),), "no 2 on top"),
    ("qv_count", (80 * 8 * (8192 * 8192 + 8192 * 1024),), "are added"),
    ("qv_count", (5,), "layers x rank x"),
    ("qv_count", (0,), "layers x rank x"),
    ("qv_count", ("many",), "give a number"),
    ("times_fewer", (422.66,), "below the line"),
    ("times_fewer", (210.2,), "against the head alone"),
    ("times_fewer", (0.00712,), "that is the share"),
    ("times_fewer", (0.712,), "in per cent"),
    ("times_fewer", (887_811,), "divide the whole model"),
    ("times_fewer", (2.01,), "compares the head"),
    ("times_fewer", (5,), "(adapter + head)"),
    ("file_size", (394.99, 414.19), "other way round"),
    ("file_size", (828.4, 790.0), "fp32"),
    ("file_size", (207.1, 197.5), "millions of numbers"),
    ("file_size", (3313.5, 3160.0), "bits"),
    ("file_size", (414.19, 414.19), "both are MB"),
    ("file_size", (394.99, 394.99), "both are MiB"),
    ("file_size", (414_187_520, 414_187_520), "those are bytes"),
    ("file_size", (0.4142, 0.3857), "GB and GiB"),
    ("file_size", (1, 2), "x 2 bytes"),
    ("file_size", ("a", "b"), "two numbers"),
    ("storage", (lambda n, base, adapter: n * (base + adapter),), "stored once"),
    ("storage", (lambda n, base, adapter: n * base,), "whole models"),
    ("storage", (lambda n, base, adapter: n * adapter,), "base is missing"),
    ("storage", (lambda n, base, adapter: base + adapter,), "one task"),
    ("storage", (lambda n, base, adapter: base / adapter,), "one base is worth"),
    ("storage", (lambda n, base, adapter: base,), "added up"),
    ("storage", (lambda n, base: base,), "TypeError"),
]


def check(name: str, arguments: tuple) -> checks.Verdict:
    return getattr(checks, f"check_{name}")(*arguments)


@pytest.mark.parametrize("name", UNSOLVED)
def test_not_yet_does_not_give_the_formula_away(name: str):
    assert not any(sign in check(name, UNSOLVED[name]).words for sign in (" x ", " / ", "10^6", "+"))


def test_the_numbers_within_the_checks_are_the_accountants():
    assert check("qv_count", (params("llama-2-70b", LoRA(8)).trainable,)).passed
    roberta = params("roberta-base", LoRA(8), num_labels=3)
    assert (roberta.total, roberta.head, roberta.trainable) == (124_647_939, 592_899, 294_912)
    assert check("times_fewer", (roberta.total / (roberta.trainable + roberta.head),)).passed
    numbers = params("llama-2-70b", LoRA(16, targets="all-linear")).trainable
    assert check("file_size", (2 * numbers / 1e6, 2 * numbers / 2**20)).passed


def test_the_pooler_may_be_counted_or_not_and_numpys_numbers_are_numbers():
    assert check("times_fewer", ((124_645_632 + 592_899) / 887_811,)).passed
    assert check("storage", (lambda n, base, adapter: np.float64(base) + n * adapter,)).passed


def test_square_weights_alone_do_not_pass_as_the_general_rule():
    assert checks.check_break_even_rank(lambda i, o: i / 2 if i == o else 0).passed is False

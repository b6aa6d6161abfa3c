"""The checks of lesson 11: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

import pytest
import torch

from lora_course import checks
from lora_lab.methods.quant import quantize


def nearest(scaled, levels):
    return (scaled[:, None] - levels).abs().argmin(1)


RIGHT = {
    "codes": (nearest,),
    "bits_per_weight": (4 + 8 / 64 + 32 / (64 * 256),),
    "bf16_step": (2**-7,),
    "three_bits_said": ("c",),
}
WRONG = [
    ("codes", (lambda s, levels: levels[nearest(s, levels)],), "the levels themselves"),
    ("codes", (lambda s, levels: torch.searchsorted(levels, s, right=True) - 1,), "at or below"),
    ("codes", (lambda s, levels: torch.searchsorted(levels, s),), "at or above"),
    ("codes", (lambda s, levels: (s[:, None] - levels).abs().argmax(1),), "farthest"),
    ("codes", (lambda s, levels: (s[:, None] - levels).argmin(1),), "without their sign"),
    ("codes", (lambda s, levels: (levels - s[:, None]).argmin(1),), "without their sign"),
    ("codes", (lambda s, levels: torch.zeros(3),), "a code for each"),
    ("codes", (lambda s, levels: 5,), "a code for each"),
    ("codes", (lambda s, levels: s / 0 + [],), "stops with"),
    ("codes", (lambda s, levels: nearest(s, levels) + 1,), "lies nearest to level number"),
    ("bits_per_weight", (4.5,), "fp32 scales"),
    ("bits_per_weight", (4.125,), "nearly"),
    ("bits_per_weight", (4,), "codes alone"),
    ("bits_per_weight", (4.25,), "64 x 256"),
    ("bits_per_weight", (0.515869140625,), "bytes"),
    ("bf16_step", (2**-8,), "tie"),
    ("bf16_step", (2**-9,), "a quarter of the distance"),
    ("three_bits_said", ("a",), "undecided is not equal"),
    ("three_bits_said", ("b",), "Holm's correction"),
    ("three_bits_said", ("x",), "one of a, b, c"),
]


def test_codes_may_be_a_list():
    assert checks.check_codes(lambda scaled, levels: nearest(scaled, levels).tolist()).passed is True


def test_the_right_bits_are_those_that_are_held():
    held = quantize(torch.randn(1024, 1024)).bits_per_weight
    assert held == pytest.approx(RIGHT["bits_per_weight"][0], abs=1e-4)


def test_the_smallest_step_in_bf16_is_the_one_that_torch_takes():
    one = torch.ones((), dtype=torch.bfloat16)
    steps = [2.0**-n for n in range(12)]
    kept = min(step for step in steps if one + torch.tensor(step).bfloat16() != one)
    assert checks.check_bf16_step(kept).passed is True

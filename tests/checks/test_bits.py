"""The checks of lesson 11."""

from __future__ import annotations

import pytest
import torch

from lora_lab import checks
from lora_lab.methods.quantize import quantize


def nearest(scaled, levels):
    return (scaled[:, None] - levels).abs().argmin(1)


def test_the_nearest_level_is_right_in_any_form():
    assert checks.check_codes(nearest).passed is True
    assert checks.check_codes(lambda scaled, levels: nearest(scaled, levels).tolist()).passed is True


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        (lambda s, levels: levels[nearest(s, levels)], "the levels themselves"),
        (lambda s, levels: torch.searchsorted(levels, s, right=True) - 1, "at or below"),
        (lambda s, levels: torch.searchsorted(levels, s), "at or above"),
        (lambda s, levels: (s[:, None] - levels).abs().argmax(1), "farthest"),
        (lambda s, levels: (s[:, None] - levels).argmin(1), "without their sign"),
        (lambda s, levels: (levels - s[:, None]).argmin(1), "without their sign"),
        (lambda s, levels: torch.zeros(3), "a code for each"),
        (lambda s, levels: 5, "a code for each"),
        (lambda s, levels: s / 0 + [], "stops with"),
        (lambda s, levels: nearest(s, levels) + 1, "lies nearest to level number"),
    ],
)
def test_wrong_codes_hear_why(codes, why):
    verdict = checks.check_codes(codes)
    assert verdict.passed is False
    assert why in verdict.words


def test_the_right_bits_are_those_that_are_held():
    held = quantize(torch.randn(1024, 1024)).bits_per_weight
    assert checks.check_bits_per_weight(4 + 8 / 64 + 32 / (64 * 256)).passed is True
    assert held == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-4)


@pytest.mark.parametrize(
    ("bits", "why"),
    [(4.5, "fp32 scales"), (4.125, "nearly"), (4, "codes alone"), (4.25, "64 x 256"), (0.515869140625, "bytes")],
)
def test_wrong_bits_hear_why(bits, why):
    verdict = checks.check_bits_per_weight(bits)
    assert verdict.passed is False
    assert why in verdict.words


def test_the_smallest_step_in_bf16_is_the_one_that_torch_takes():
    one = torch.ones((), dtype=torch.bfloat16)
    steps = [2.0**-n for n in range(12)]
    kept = min(step for step in steps if one + torch.tensor(step).bfloat16() != one)
    assert checks.check_bf16_step(kept).passed is True
    assert "tie" in checks.check_bf16_step(2**-8).words
    assert checks.check_bf16_step(2**-9).passed is False


@pytest.mark.parametrize(("answer", "passed"), [("c", True), ("C.", True), ("a", False), ("b", False), ("x", False)])
def test_what_may_be_said(answer, passed):
    assert checks.check_three_bits_said(answer).passed is passed


def test_unsolved_is_not_yet():
    assert checks.check_codes(lambda scaled, levels: ...).passed is None
    assert checks.check_bits_per_weight(...).passed is None
    assert checks.check_bf16_step(...).passed is None
    assert checks.check_three_bits_said(...).passed is None

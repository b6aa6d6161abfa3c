import pytest
import torch

from lora_course.checks.bits import CASE, PAGE, PARTS, sizes
from lora_lab.methods.quant import levels_of

LEVELS = levels_of("nf4")
BLOCK = torch.randn(64, generator=torch.Generator().manual_seed(1)) / 20
ABSMAX = BLOCK.abs().max()
DISTANCE = BLOCK[:, None] / ABSMAX - LEVELS
INDEX = DISTANCE.abs().argmin(1)
BACK = LEVELS[INDEX] * ABSMAX


def peak_gib(bits, case=CASE):
    linear, other, rest = sizes(*case[::2])
    return (linear * bits / 8 + 2 * other + rest) / 2**30


def saved_mib(bits=4.5 - 4.127, case=CASE):
    return sizes(*case[::2])[0] * bits / 8 / 2**20


def card(fits, *case):
    return "card", (peak_gib(4.127, case), saved_mib(case=case), fits, case)


PEAK, SAVED = peak_gib(4.127), saved_mib()
RIGHT = [
    ("block", (ABSMAX, INDEX, BACK, BLOCK)),
    ("card", (PEAK, SAVED, "4.127 bits")),
    card("4.5 bits", "mistral-7b", "T4 16 GB", 2048),
    card("none", "gemma-2-9b", "T4 16 GB", 2048),
    card("16 bits", "qwen2.5-7b", "L4 24 GB", 2048),
]
WRONG = [
    ("block", (BLOCK.min(), INDEX, BACK, BLOCK), "-0.9 counts as 0.9"),
    ("block", (BLOCK, INDEX, BACK, BLOCK), "largest absolute value"),
    ("block", (ABSMAX, 3, BACK, BLOCK), "must have 64 numbers"),
    ("block", (ABSMAX, "ab", BACK, BLOCK), "tensors of 64"),
    ("block", (ABSMAX, LEVELS[INDEX], BACK, BLOCK), "the levels themselves"),
    ("block", (ABSMAX, DISTANCE.argmin(1), BACK, BLOCK), "take abs()"),
    ("block", (ABSMAX, (BLOCK[:, None] - LEVELS).abs().argmin(1), BACK, BLOCK), "divide it by absmax"),
    ("block", (ABSMAX, 15 - INDEX, BACK, BLOCK), "its index is"),
    ("block", (ABSMAX, INDEX, LEVELS[INDEX], BLOCK), "multiply by absmax"),
    ("block", (ABSMAX, INDEX, BLOCK, BLOCK), "levels[index] * absmax"),
    ("card", (peak_gib(16), SAVED, "none"), "16 bits for all weights"),
    ("card", (peak_gib(4), SAVED, "none"), "the indices alone"),
    ("card", (peak_gib(4.5), SAVED, "none"), "without double quantization"),
    ("card", (PEAK * 2**30 / 1e9, SAVED, "none"), "GiB has 2**30"),
    ("card", (1, SAVED, "none"), "the rest of the step"),
    ("card", (PEAK, 8 * SAVED, "none"), "divide by 8"),
    ("card", (PEAK, SAVED / 1024, "none"), "in MiB"),
    ("card", (PEAK, saved_mib(0.127), "none"), "how much is saved"),
    ("card", (PEAK, SAVED, "4.5 bits"), "too much"),
    ("card", (PEAK, SAVED, "none"), "is usable"),
]


def test_page_quotes_the_levels():
    assert ", ".join(f"{level:.3f}" for level in LEVELS) in PAGE["question"]
    assert (LEVELS - 0.0512 / 0.25).abs().argmin() == PARTS["index"].right
    assert PARTS["weight"].right == pytest.approx(float(LEVELS[10]) * 0.25)

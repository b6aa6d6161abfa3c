"""The checks of lesson 12: answers for `test_checks`."""

import pytest
import torch

from lora_course import checks
from lora_course.checks.bits import CASE, WORDS, sizes
from lora_lab.methods.quant import levels_of

LEVELS = levels_of("nf4")
BLOCK = torch.randn(64, generator=torch.Generator().manual_seed(1)) / 20
LARGEST = BLOCK.abs().max()
APART = BLOCK[:, None] / LARGEST - LEVELS
INDEX = APART.abs().argmin(1)
BACK = LEVELS[INDEX] * LARGEST
LINEAR, OTHER, REST = sizes(*CASE[::2])


def peak(bits):
    return (LINEAR * bits / 8 + 2 * OTHER + REST) / 2**30


SAVED = LINEAR * (4.5 - 4.127) / 8 / 2**20
RIGHT = {"block": (LARGEST, INDEX, BACK, BLOCK), "card": (peak(4.127), SAVED, "4.127 bits")}
WRONG = [
    ("block", (BLOCK.min(), INDEX, BACK, BLOCK), "-0.9 counts as 0.9"),
    ("block", (BLOCK, INDEX, BACK, BLOCK), "without its sign"),
    ("block", (LARGEST, 3, BACK, BLOCK), "hold 64 numbers"),
    ("block", (LARGEST, "ab", BACK, BLOCK), "tensors of 64"),
    ("block", (LARGEST, LEVELS[INDEX], BACK, BLOCK), "the levels themselves"),
    ("block", (LARGEST, APART.argmin(1), BACK, BLOCK), "take abs()"),
    ("block", (LARGEST, (BLOCK[:, None] - LEVELS).abs().argmin(1), BACK, BLOCK), "divide it by absmax"),
    ("block", (LARGEST, 15 - INDEX, BACK, BLOCK), "its index is"),
    ("block", (LARGEST, INDEX, LEVELS[INDEX], BLOCK), "multiply by absmax"),
    ("block", (LARGEST, INDEX, BLOCK, BLOCK), "levels[index] * absmax"),
    ("card", (peak(16), SAVED, "none"), "16 bits everywhere"),
    ("card", (peak(4), SAVED, "none"), "the indices alone"),
    ("card", (peak(4.5), SAVED, "none"), "without double quantization"),
    ("card", (peak(4.127) * 2**30 / 1e9, SAVED, "none"), "GiB has 2**30"),
    ("card", (1, SAVED, "none"), "the rest of the step"),
    ("card", (peak(4.127), 8 * SAVED, "none"), "divide by 8"),
    ("card", (peak(4.127), SAVED / 1024, "none"), "in MiB"),
    ("card", (peak(4.127), LINEAR * 0.127 / 8 / 2**20, "none"), "how much went away"),
    ("card", (peak(4.127), SAVED, "4.5 bits"), "too much"),
    ("card", (peak(4.127), SAVED, "none"), "is usable"),
    ("card", (peak(4.127), SAVED, "4 bits"), "fits: answer with one of"),
]


CASES = {
    CASE: "4.127 bits",
    ("mistral-7b", "T4 16 GB", 2048): "4.5 bits",
    ("gemma-2-9b", "T4 16 GB", 2048): "none",
    ("qwen2.5-7b", "L4 24 GB", 2048): "16 bits",
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_an_answer_by_hand(case):
    linear, other, rest = sizes(*case[::2])
    by_hand = (linear * 4.127 / 8 + 2 * other + rest) / 2**30
    saved = linear * 0.373 / 8 / 2**20
    assert [word for word in WORDS if checks.check_card(by_hand, saved, word, case).passed] == [CASES[case]]

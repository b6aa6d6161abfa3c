"""The checks of lesson 04: answers for `test_checks`, and what the right ones rest on."""

import pytest

from lora_course import checks
from lora_lab import LoRA, memory

FIXED = 5.39 * 2**30 + 160 * 2**20
V, L, H = 128_256, 32, 4096
STEP = {"quantised": "nf4", "checkpointing": True}
RIGHT = {
    "peak": (lambda tokens: FIXED + tokens * (2 * L * H + 12 * V),),
    "longest_row": ("QLoRA", True, "adamw", 1, 4600),
}
WRONG = [
    ("peak", (lambda t: FIXED + t * (2 * L * H + 4 * V),), "one table"),
    ("peak", (lambda t: FIXED + t * (2 * L * H + 6 * V),), "fp32"),
    ("peak", (lambda t: FIXED + t * 12 * V,), "each of the 32 layers"),
    ("peak", (lambda t: FIXED + t * 2 * L * H,), "logits are missing"),
    ("peak", (lambda t: FIXED + t * (4 * L * H + 12 * V),), "2 bytes a number"),
    ("peak", (lambda t: t * (2 * L * H + 12 * V),), "before the first token"),
    ("peak", (lambda t: 5.39 * 2**30 + t * (2 * L * H + 12 * V),), "optimizer is missing"),
    ("peak", (lambda t: FIXED + 2 * L * H + 12 * V,), "multiply by tokens"),
    ("peak", (lambda t: RIGHT["peak"][0](t) / 2**30,), "not GiB"),
    ("peak", (lambda t: FIXED * t,), "for each token"),
    ("longest_row", ("full fine-tuning", True, "sgd", 1, 64), "every weight trains"),
    ("longest_row", ("LoRA q, v", True, "adamw", 1, 512), "no text is short enough"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4617), "backward of the loss"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4682), "leaves out about 1%"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 5000), "it holds weights"),
    ("longest_row", ("QLoRA", False, "adamw", 1, 4600), "activations 2"),
    ("longest_row", ("QLoRA", False, "adamw", 1, 1121), "without checkpointing"),
    ("longest_row", ("QLoRA", True, "adamw", 2, 2300), "2 texts share"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 4096), "only the text is too short"),
    ("longest_row", ("LoRA q, v", True, "adamw", 1, 4096, "RTX 4090 24 GB"), "in 4 bits"),
    ("longest_row", ("lora", True, "adamw", 1, 4600), "method must be one of"),
    ("longest_row", ("QLoRA", True, "adamw", 1, 8), "at least 32"),
    ("longest_row", ("QLoRA", "no", "adamw", 1, 4600), "True or False"),
]


def test_each_card_has_a_longest_row_and_one_token_more_does_not_fit():
    for card, seq in {"T4 16 GB": 4616, "RTX 3060 12 GB": 2897, "L4 24 GB": 8970, "RTX 4090 24 GB": 9772}.items():
        assert checks.check_longest_row("QLoRA", True, "adamw", 1, seq, card).passed
        assert "more than" in checks.check_longest_row("QLoRA", True, "adamw", 1, seq + 1, card).words


def test_the_hint_is_that_of_the_first_wrong_part():
    assert "solve" in checks.check_longest_row("QLoRA", True, "adamw", 1, 4682).hint
    assert "weights" in checks.check_longest_row("full", True, "adamw", 1, 64).hint
    assert "checkpointing" in checks.check_longest_row("QLoRA", False, "adamw", 1, 4600).hint
    assert "second text" in checks.check_longest_row("QLoRA", True, "adamw", 2, 2300).hint


def test_the_formula_is_the_accountants():
    for tokens in (256, 1024, 4616):
        peak = memory("llama-3-8b", LoRA(rank=8, targets="all-linear"), seq=tokens, **STEP).peak
        assert RIGHT["peak"][0](tokens) == pytest.approx(peak, rel=0.01)

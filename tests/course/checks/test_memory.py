"""The checks of lesson 05: answers for `test_checks`, and what the right ones rest on."""

from __future__ import annotations

import numpy as np
import pytest

from lora_course import checks
from lora_lab import FullFineTuning, LoRA, memory, params
from lora_lab.accounting.models import architecture_of

GIB, GB, N = 2**30, 10**9, 8_030_261_248
LAYERS, REST = 68_451_041_280, 525_606_912
DOWN = 1000 * 14336 * 2 * 32 / GIB
RIGHT = {
    "adam_gib": (16 * N / GIB,),
    "nf4_gib": ((LAYERS * 4.127 / 8 + 2 * REST) / GIB,),
    "logits_mb": (8 * 512 * 50257 * 4 / 1e6,),
    "down_gib": (DOWN,),
    "recompute": (4 / 3, 1.5),
}
ROUNDED = [("adam_gib", 119.7), ("nf4_gib", 33.9), ("logits_mb", 823), ("down_gib", np.float64(0.854))]
WRONG = [
    ("adam_gib", (128.48,), "those are GB"),
    ("adam_gib", (12 * N / GIB,), "Adam keeps two moments"),
    ("adam_gib", (8 * N / GIB,), "each of the four numbers"),
    ("adam_gib", (4 * N / GIB,), "the weights alone"),
    ("adam_gib", (2 * N / GIB,), "in bf16"),
    ("adam_gib", (128 * N / GIB,), "gibibits"),
    ("adam_gib", (16 * N,), "divide by 2^30"),
    ("adam_gib", (70,), "times too small"),
    ("adam_gib", (120,), "nearly: give one more digit"),
    ("adam_gib", (-3,), "above zero"),
    ("adam_gib", ("120 GiB",), "a number is wanted"),
    ("nf4_gib", (36.36,), "those are GB"),
    ("nf4_gib", ((LAYERS * 4.127 + 2 * REST) / GIB,), "8 bits make a byte"),
    ("nf4_gib", (LAYERS * 4.127 / 8 / GIB,), "are missing"),
    ("nf4_gib", ((LAYERS * 4.127 / 8 + REST / 4) / GIB,), "not 2 bits"),
    ("logits_mb", (0.8234,), "those are GB"),
    ("nf4_gib", ((LAYERS / 2 + 2 * REST) / GIB,), "scale"),
    ("nf4_gib", ((LAYERS + REST) * 4.127 / 8 / GIB,), "not quantised"),
    ("nf4_gib", ((LAYERS + REST) / 2 / GIB,), "on top"),
    ("nf4_gib", ((LAYERS + REST) * 2 / GIB,), "bf16 throughout"),
    ("nf4_gib", ((LAYERS * 4.127 / 8 + 4 * REST) / GIB,), "not 4"),
    ("logits_mb", (8 * 512 * 50257 * 4 / 2**20,), "MiB"),
    ("logits_mb", (102.9,), "one row"),
    ("logits_mb", (8 * 50257 * 4 / 1e6,), "at every token"),
    ("logits_mb", (411.7,), "bf16"),
    ("logits_mb", (205.85,), "numbers"),
    ("logits_mb", (8 * 823.41,), "bits"),
    ("logits_mb", (2470.2,), "all three"),
    ("down_gib", (0.9175,), "those are GB"),
    ("down_gib", (DOWN / 32,), "one layer"),
    ("down_gib", (DOWN * 4096 / 14336,), "d = 4,096 is its output"),
    ("down_gib", (2 * DOWN,), "fp32"),
    ("down_gib", (DOWN / 2,), "numbers"),
    ("down_gib", (8 * DOWN,), "bits"),
    ("down_gib", (DOWN * (1 + 4096 / 14336),), "not the output"),
    ("down_gib", (3.5,), "the weights of down"),
    ("down_gib", (0.00879,), "the adapters themselves"),
    ("recompute", (1.5, 1.33), "other way round"),
    ("recompute", (1.33, 1.33), "frozen weights"),
    ("recompute", (1.5, 1.5), "worth three"),
    ("recompute", (4, 3), "divide by"),
    ("recompute", (2, 2), "not the whole step"),
    ("recompute", (0.333, 0.5), "what is added"),
    ("recompute", (33.3, 50), "not per cent"),
    ("recompute", (7, 9), "one forward more"),
    ("recompute", ("a", 2), "two numbers"),
]


def check(name: str, arguments: tuple) -> checks.Verdict:
    return getattr(checks, f"check_{name}")(*arguments)


@pytest.mark.parametrize(("name", "answer"), ROUNDED)
def test_a_rounded_answer_passes(name: str, answer: float):
    assert check(name, (answer,)).passed is True


def test_the_numbers_within_the_checks_are_the_accountants():
    full = memory("llama-3-8b", FullFineTuning(), seq=64).categories  # in bf16: half of what fp32 takes
    assert check("adam_gib", (2 * sum(full[c] for c in ("weights", "gradients", "optimizer")) / GIB,)).passed
    step = {"quantised": "nf4", "checkpointing": True}
    base = {t.where: t.bytes for t in memory("llama-2-70b", LoRA(), **step).terms if t.category == "weights"}
    assert check("nf4_gib", ((base["base in nf4"] + base["base"]) / GIB,)).passed
    assert params("llama-2-70b", LoRA()).total == LAYERS + REST
    assert check("logits_mb", (4 * 8 * 512 * architecture_of("gpt2").vocabulary / 1e6,)).passed
    kept = [
        next(t.bytes for t in memory("llama-3-8b", method, seq=1000).terms if t.where == "model.layers.*.mlp")
        for method in (LoRA(), LoRA(targets="all-linear"))
    ]
    assert check("down_gib", ((kept[1] - kept[0]) / GIB,)).passed

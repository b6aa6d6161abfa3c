"""What each method needs of memory: the trace equals a real step, to the byte."""

from __future__ import annotations

import pytest

from lora_lab import LoRA
from lora_lab.accounting.memory import memory
from lora_lab.methods import REGISTRY, method_from
from lora_lab.training.measure import measure
from tests.accounting.test_memory import config

NEEDS_A_HEAD = ("head", "probe")  # which the step of a language model lacks
SIZE = {"layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 16, "inner": 64, "vocabulary": 96}
VARIANTS = [
    LoRA(dora=True), LoRA(init="pissa"), LoRA(freeze_a=True), LoRA(lr_ratio=16),
    LoRA(init="pissa", freeze_a=True), LoRA(dora=True, freeze_a=True),
]  # fmt: skip
METHODS = [method_from({"name": name, **({"size": 8} if name == "bottleneck" else {})}) for name in REGISTRY]
CASES = [(m, "bert", "fp32") for m in (*METHODS, *VARIANTS)]
CASES += [(m, "gpt2", "bf16") for m in METHODS if m.name not in NEEDS_A_HEAD]


@pytest.mark.parametrize(("method", "family", "dtype"), CASES)
def test_a_trace_of_every_method_equals_a_real_step_to_the_byte(method, family, dtype):
    fields, setup = config(family, SIZE), {"batch": 2, "seq": 24, "device": "cpu", "dtype": dtype}
    real = measure(fields, method, **setup)
    found = memory(fields, method, trace=True, **setup)
    assert found.peak == real.peak
    assert found.categories == real.categories

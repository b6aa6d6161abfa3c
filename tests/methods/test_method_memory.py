"""What each method needs of memory: the trace is held to a real step, to the byte."""

from __future__ import annotations

import pytest

from lora_lab.accounting.memory import memory
from lora_lab.methods import REGISTRY, method_from
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.training.measure import measure
from tests.accounting.test_memory import config

NEEDS_A_HEAD = ("head", "probe")  # which the step of a language model lacks
SIZE = {"layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 16, "inner": 64, "vocabulary": 96}


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("name", REGISTRY)
def test_a_trace_of_every_method_equals_a_real_step_to_the_byte(name, family, dtype):
    if family == "gpt2" and name in NEEDS_A_HEAD:
        return
    fields, method = config(family, SIZE), method_from({"name": name})
    setup = {"batch": 2, "seq": 24, "device": "cpu", "dtype": dtype}
    if name == "bottleneck":
        method = Bottleneck(size=8)  # 64 are more than the model is wide
    real = measure(fields, method, **setup)
    found = memory(fields, method, trace=True, **setup)
    assert found.peak == real.peak
    assert found.categories == real.categories

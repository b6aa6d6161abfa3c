"""Arithmetic of a step: the products that PyTorch counts in the real step, and the bound on what LoRA saves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lora_lab import FullFineTuning, LoRA, PromptTuning
from lora_lab.accounting.memory import memory
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.trace import build, forward_backward, prepare
from tests.accounting.test_memory import SIZE, config


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.parametrize(
    ("family", "method", "checkpointing"),
    [("bert", LoRA(rank=2, targets=("q", "up")), True), ("bert", FullFineTuning(), False),
     ("gpt2", LoRA(rank=4, targets="all-linear"), False), ("gpt2", PromptTuning(5), True),
     ("qwen3", FullFineTuning(), True), ("qwen3", LoRA(rank=4, targets="all-linear"), True)],
)  # fmt: skip
def test_every_product_of_the_real_step_is_counted(family, method, checkpointing):
    options: dict[str, Any] = {"batch": 2, "seq": 24, "dtype": "fp32", "device": "cpu", "checkpointing": checkpointing}
    fields, setup = config(family, SIZE), Setup(**options)
    model = build(fields, setup)
    prepare(model, method, setup)
    # The lab's LoRA adds in place, which PyTorch's counter does not know.
    in_place = {torch.ops.aten.addmm_: lambda _, x, y, **more: 2 * x[0] * x[1] * y[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        forward_backward(model, setup)
    assert memory(fields, method, trace=True, **options).flops == counter.get_total_flops()


def test_experts_count_as_often_as_a_token_uses_them():
    mixed = {**config("llama", SIZE), "model_type": "mixtral", "num_local_experts": 8}
    one, two = (
        memory(mixed | {"num_experts_per_tok": n}, FullFineTuning(), trace=True, batch=1, seq=64).flops for n in (1, 2)
    )
    assert two - one == pytest.approx(3 * 2 * 3 * 128 * 320 * SIZE["layers"] * 64, rel=0.01)

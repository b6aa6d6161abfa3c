"""A trace puts a GPU's kernels in the place of the CPU's for its own thread; whoever trains meanwhile has the real."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from lora_lab.accounting.kernels import stand_ins
from tests.conftest import tiny


def step_of_packed_rows() -> list[torch.Tensor]:
    """The gradients of one step with dropout and fused attention, on two texts in each row."""
    model = tiny("gpt2").train()
    model.set_attn_implementation("sdpa")
    torch.manual_seed(1)
    ids, positions = torch.arange(24).view(2, 12), torch.tensor([[*range(5), *range(7)]] * 2)
    model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False).loss.backward()
    return [p.grad for p in model.parameters()]


def test_another_thread_trains_as_ever_while_one_traces(silent):
    alone = step_of_packed_rows()
    with ThreadPoolExecutor(1) as other, stand_ins(cuda=True):
        beside = other.submit(step_of_packed_rows).result(timeout=60)
    assert all(torch.equal(one, two) for one, two in zip(alone, beside, strict=True))


def test_the_tracing_thread_has_the_kernels_of_a_gpu():
    q = torch.empty(1, 2, 8, 16, device="meta", requires_grad=True)
    with stand_ins(cuda=True):
        kept = torch.nn.functional.scaled_dot_product_attention(q, q, q).grad_fn.name()
    assert "Efficient" in kept

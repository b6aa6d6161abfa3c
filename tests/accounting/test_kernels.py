"""Tests of the GPU kernels that a trace substitutes in its own thread."""

from concurrent.futures import ThreadPoolExecutor

import torch

from lora_lab.accounting.kernels import stand_ins
from tests.conftest import tiny


def packed_step() -> list[torch.Tensor]:
    """Return the gradients of a step with dropout and fused attention on two texts per row."""
    model = tiny("gpt2").train()
    model.set_attn_implementation("sdpa")
    torch.manual_seed(1)
    ids, positions = torch.arange(24).view(2, 12), torch.tensor([[*range(5), *range(7)]] * 2)
    model(input_ids=ids, position_ids=positions, labels=ids, use_cache=False).loss.backward()
    return [p.grad for p in model.parameters()]


def test_other_threads_keep_the_real_kernels(silent):
    expected = packed_step()
    with ThreadPoolExecutor(1) as executor, stand_ins(cuda=True):
        actual = executor.submit(packed_step).result(timeout=60)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_tracing_thread_uses_gpu_kernels():
    q = torch.empty(1, 2, 8, 16, device="meta", requires_grad=True)
    with stand_ins(cuda=True):
        grad_fn = torch.nn.functional.scaled_dot_product_attention(q, q, q).grad_fn
    assert "Efficient" in grad_fn.name()

"""Products of fp32 numbers that are rounded to bf16 as they are multiplied, and added up in fp32: a CPU's TF32.

    y = sum over i of bf16(x_i) bf16(w_i)       x, w, y and the sum in fp32

A processor that multiplies bf16 in hardware takes a third of the time for them. All else of training stays as it is in
fp32: what is kept, the gradients, the update that bf16 weights would lose, and every byte of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """Within the block torch may round what it multiplies on a CPU to `dtype`, bf16 or fp32, where that is faster.

    The setting is the process's, so products of other threads are rounded as well meanwhile.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if dtype == "bf16" else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

"""What a GPU's kernels keep for backward, on a machine that has no GPU: shapes are all that a trace needs.

On a GPU attention is one kernel that keeps q, k, v, its output and a logarithm per row, and dropout keeps one byte
a number. The CPU's own kernels keep far more where dropout is on: GPT-2 at 4 x 1024 in bf16 needs 9.1 GiB for
activations with them and 2.1 GiB with these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

_ONE_THREAD = threading.RLock()


@contextmanager
def replaced(owner: Any, name: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, `owner.name` is `ours` for this thread; for the others, which may be training, it stays as it
    is. A second thread that wants to replace something waits until the first is done.
    """
    with _ONE_THREAD:
        real, here = getattr(owner, name), threading.get_ident()

        def function(*args: Any, **options: Any) -> Any:
            return (ours if threading.get_ident() == here else real)(*args, **options)

        with mock.patch.object(owner, name, function):
            yield


@contextmanager
def cuda_kernels() -> Iterator[None]:
    """Inside the block, dropout and attention save what they save on CUDA.

    The functions are replaced rather than caught by a mode: checkpointing runs them again inside backward, where
    function modes are not active.
    """
    with replaced(F, "dropout", _dropout), replaced(F, "scaled_dot_product_attention", _attention):
        yield


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p > 0 else x


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Flash attention in half precision, without a mask, with heads of one width; else the memory-efficient kernel."""
    if attn_mask is None and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] == v.shape[-1]:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, False, scale=scale)[0]
    if k.shape[1] != q.shape[1]:
        times = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    mask = None if attn_mask is None else _additive(attn_mask, q.dtype).expand(*q.shape[:3], k.shape[2])
    efficient: Any = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(q, k, v, mask, True, dropout_p, is_causal, scale=scale)[0]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, float("-inf"))

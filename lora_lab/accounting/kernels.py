"""Emulate what GPU kernels save for backward, on a machine without a GPU. A trace needs only shapes.

On a GPU, attention is one kernel that saves q, k, v, its output and one logarithm per row, and dropout saves one byte
per element. With dropout, CPU kernels keep far more for the backward pass: with 4 rows of 1,024 tokens, GPT-2's
activations in bf16 take 9.1 GiB with CPU kernels and 2.1 GiB with GPU kernels.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import initialization, masking_utils
from transformers.integrations import moe
from transformers.utils import import_utils

from lora_lab.methods import quant
from lora_lab.methods.quant import Quantized, QuantizedLinear
from lora_lab.methods.targets import BLOCK, NESTED, QUANTIZED_BITS

_ONE_THREAD = threading.RLock()


@contextmanager
def stand_ins(cuda: bool) -> Iterator[None]:
    """In the `with` block, let this thread compute only the shapes of masks, expert products and quantized weights.

    If `cuda` is true, attention and dropout save the same tensors for backward as on a GPU. The functions are patched
    because checkpointing calls them again during backward, where torch's function modes are not active.
    """
    thread = threading.get_ident()

    def in_this_thread(stand_in: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: (stand_in if threading.get_ident() == thread else real)(*args, **options)

    replacements: list[tuple[Any, str, Callable[..., Any]]] = [
        (masking_utils, "find_packed_sequence_indices", lambda position_ids: None),
        (import_utils, "is_fake_tensor", lambda tensor: True),  # meta tensors count as fake, too: they have no values
        (initialization, "trunc_normal_", lambda tensor, **options: tensor),
        (moe, "_grouped_mm", lambda x, weight, offs: _GroupedProduct.apply(x, weight)),  # type: ignore[no-untyped-call]
        (quant, "quantize", _codes),
        (QuantizedLinear, "dequantized", _dequantized),
    ]
    for name in ("_ignore_causal_mask_sdpa", "_ignore_bidirectional_mask_sdpa"):
        # A mask made by the model itself has no padding, but without data, transformers cannot see that.
        ignore = getattr(masking_utils, name)
        replacements.append((masking_utils, name, lambda padding_mask, *sizes, ignore=ignore: ignore(None, *sizes)))
    if cuda:
        replacements += [(F, "dropout", _dropout), (F, "scaled_dot_product_attention", _attention)]
    with _ONE_THREAD, ExitStack() as stack:
        for owner, name, stand_in in replacements:
            stack.enter_context(mock.patch.object(owner, name, in_this_thread(stand_in, getattr(owner, name))))
        yield


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p > 0 else x


def _attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Run flash attention if possible (half precision, no mask, equal widths), else the memory-efficient kernel."""
    if attn_mask is None and q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] == v.shape[-1]:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, False, scale=scale)[0]
    if (groups := q.shape[1] // k.shape[1]) > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, float("-inf"))
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    efficient: Any = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


def _codes(weight: Tensor, name: str) -> Quantized:
    """Allocate the tensors that `quantize` would fill with codes and scales."""
    blocks = -(-weight.numel() // BLOCK)
    codes = weight.new_empty(blocks * BLOCK * QUANTIZED_BITS[name] // 8, dtype=torch.uint8)
    if name.endswith("-single"):
        return Quantized(name, weight.shape, codes, weight.new_empty(blocks, dtype=torch.float32))
    scales, offset = (weight.new_empty(n, dtype=torch.float32) for n in (-(-blocks // NESTED), 1))
    return Quantized(name, weight.shape, codes, weight.new_empty(blocks, dtype=torch.uint8), scales, offset)


def _dequantized(layer: QuantizedLinear, dtype: torch.dtype = torch.float32) -> Tensor:
    """Allocate the result once, as bitsandbytes does."""
    return layer.packed.new_empty(layer.out_features, layer.in_features, dtype=dtype)


class _GroupedProduct(torch.autograd.Function):
    """Multiply rows (sorted by expert) by the matrix of their expert: (rows, in) x (experts, in, out) -> (rows, out).

    PyTorch has this product only in bf16, so we multiply all rows by one expert's matrix. Shape and FLOPs are the same.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.to(weight.dtype)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return x @ weight[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight = ctx.saved_tensors
        dx = gradients[0] @ weight[0].t() if ctx.needs_input_grad[0] else None
        if x is None:
            return dx, None
        x.t() @ gradients[0]  # counts the FLOPs of dW, which the next line allocates
        return dx, torch.empty_like(weight)

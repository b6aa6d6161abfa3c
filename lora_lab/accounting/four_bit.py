"""A stand-in for 4-bit linear layers in a trace: the storages that bitsandbytes' layers have, and none of the numbers.

The frozen weight is 4-bit codes and a scale a block; each product makes the whole matrix in the activations' dtype for
a moment, forward and backward. That moment is what a trace must see, so it is made here, filled with nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.accounting.operations import BLOCK, NESTED
from lora_lab.accounting.setup import QUANTISED_BITS

OUTSIDE = ("lm_head", "classifier", "score", "pooler")  # bitsandbytes leaves the head as it is


def quantise(model: nn.Module, form: str) -> None:
    """Put a stand-in in the place of every linear layer inside the model's layers."""
    for name, module in list(model.named_modules()):
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and not set(name.split(".")) & set(
            OUTSIDE
        ):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, FourBitLinear(module, form))


class FourBitLinear(nn.Linear):
    """y = W x + b with W in 4 bits; x (..., in) -> y (..., out). Its values are meaningless, its memory is not."""

    plain_linear = True  # an adapter may stand beside it

    def __init__(self, linear: Any, form: str) -> None:
        nn.Module.__init__(self)  # not Linear's, which would make the whole weight
        shape = linear.weight.shape if isinstance(linear, nn.Linear) else linear.weight.t().shape
        self.out_features, self.in_features = shape
        numbers, dtype = linear.weight.numel(), linear.weight.dtype
        double, packed = not form.endswith("-single"), numbers * QUANTISED_BITS[form] // 8
        self.codes = nn.Parameter(torch.empty(packed, dtype=torch.uint8), requires_grad=False)
        blocks = numbers // BLOCK
        self.register_buffer("absmax", torch.empty(blocks, dtype=torch.uint8 if double else torch.float32))
        if double:
            self.register_buffer("absmax_scales", torch.empty(blocks // NESTED, dtype=torch.float32))
        self.register_buffer("weight", torch.empty(1, 1, dtype=dtype).expand(shape))  # the shape alone
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self.codes, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, shaped: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(codes, shaped)
        return nn.functional.linear(x, torch.empty_like(shaped, memory_format=torch.contiguous_format), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        _, shaped = ctx.saved_tensors
        return gradients[0] @ torch.empty_like(shaped, memory_format=torch.contiguous_format), None, None, None

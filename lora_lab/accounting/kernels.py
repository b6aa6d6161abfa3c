"""What a GPU's kernels keep for backward, on a machine without a GPU: shapes are all that a trace needs.

On a GPU attention is one kernel that keeps q, k, v, its output and a logarithm per row, and dropout keeps one byte a
number. The CPU's own kernels keep far more when dropout is on: GPT-2 at 4 x 1024 in bf16 needs 9.1 GiB for activations
with them and 2.1 GiB with these. Everything here computes shapes, not values.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import masking_utils
from transformers.integrations import moe

from lora_lab.methods.formats import BLOCK, NESTED, OUTSIDE, QUANTISED_BITS

_ONE_THREAD = threading.RLock()


@contextmanager
def replaced(owner: Any, name: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Inside the block, `owner.name` is `ours` for this thread; other threads, which may be training, keep theirs.

    A second thread that wants to replace something waits until the first is done.
    """
    with _ONE_THREAD:
        real, here = getattr(owner, name), threading.get_ident()

        def function(*args: Any, **options: Any) -> Any:
            return (ours if threading.get_ident() == here else real)(*args, **options)

        with mock.patch.object(owner, name, function):
            yield


@contextmanager
def stand_ins(cuda: bool) -> Iterator[None]:
    """Inside the block, this thread's masks and expert products ask for no values; with `cuda`, attention and dropout
    keep what they keep on a GPU.

    Functions are replaced rather than caught by a mode: checkpointing runs them again inside backward, where function
    modes are not active.
    """
    with ExitStack() as stack:
        stack.enter_context(replaced(masking_utils, "find_packed_sequence_indices", lambda position_ids: None))
        stack.enter_context(replaced(moe, "_grouped_mm", _grouped))
        if cuda:
            stack.enter_context(replaced(F, "dropout", _dropout))
            stack.enter_context(replaced(F, "scaled_dot_product_attention", _attention))
        yield


def _grouped(x: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    return _GroupedProduct.apply(x, weight)  # type: ignore[no-untyped-call, no-any-return]


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


# ---- weights in a few bits


def quantise(model: nn.Module, form: str) -> None:
    """Put a stand-in in the place of every linear layer and every expert tensor inside the model's layers."""
    for name, module in list(model.named_modules()):
        if set(name.split(".")) & set(OUTSIDE):
            continue
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, FourBitLinear(module, form))
        else:
            for tensor_name, tensor in list(module.named_parameters(recurse=False)):
                if tensor.dim() == 3:
                    _hold_codes(module, tensor_name, tensor, form)


def _hold_codes(module: nn.Module, name: str, weight: Tensor, form: str) -> None:
    """The storages that bitsandbytes keeps in the place of a weight, and under its old name a tensor of its shape."""
    numbers, double = weight.numel(), not form.endswith("-single")
    blocks = numbers // BLOCK
    delattr(module, name)
    empty = partial(torch.empty, device=weight.device)
    codes = empty(numbers * QUANTISED_BITS[form] // 8, dtype=torch.uint8)
    module.register_parameter(f"{name}_codes", nn.Parameter(codes, requires_grad=False))
    module.register_buffer(f"{name}_absmax", empty(blocks, dtype=torch.uint8 if double else torch.float32))
    if double:
        module.register_buffer(f"{name}_absmax_scales", empty(blocks // NESTED, dtype=torch.float32))
    module.register_buffer(name, empty((1,) * weight.dim(), dtype=weight.dtype).expand(weight.shape))


class FourBitLinear(nn.Linear):
    """y = W x + b with W in a few bits: x (..., in) -> y (..., out). Each product makes the whole W for a moment."""

    plain_linear = True  # an adapter may stand beside it

    def __init__(self, linear: Any, form: str) -> None:
        nn.Module.__init__(self)  # not Linear's, which would make the whole weight
        weight = linear.weight if isinstance(linear, nn.Linear) else linear.weight.t()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        _hold_codes(self, "weight", weight, form)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self.weight_codes, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, shaped: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(codes, shaped)
        return F.linear(x, torch.empty_like(shaped, memory_format=torch.contiguous_format), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        _, shaped = ctx.saved_tensors
        return gradients[0] @ torch.empty_like(shaped, memory_format=torch.contiguous_format), None, None, None


class _GroupedProduct(torch.autograd.Function):
    """Rows sorted by expert, each times its expert's matrix: x (rows, in), weight (experts, in, out) -> (rows, out).

    PyTorch has this product in bf16 alone; the stand-in has every dtype. Of weights in a few bits, one expert's matrix
    at a time is made. A product with one expert's matrix has the shape, and the FLOPs, of the whole.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.to(weight.dtype)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return x @ _one_expert(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight = ctx.saved_tensors
        dx = gradients[0] @ _one_expert(weight).t() if ctx.needs_input_grad[0] else None
        if x is None:
            return dx, None
        x.t() @ gradients[0]  # counts the FLOPs of dW, whose memory is the next line's
        return dx, torch.empty_like(weight)


def _one_expert(weight: Tensor) -> Tensor:
    coded = weight.untyped_storage().nbytes() < weight.numel()
    return weight.new_empty(weight.shape[1:]) if coded else weight[0]


# ---- optimizers that PyTorch lacks, or has for real GPUs alone


class EightBitAdamW(torch.optim.Optimizer):
    """The states of bitsandbytes' AdamW: a byte a moment, a scale per 256; fp32 for fewer than 4,096 numbers."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if not self.state[p]:
                small = p.numel() < 4096
                moment = torch.zeros_like(p, dtype=torch.float32 if small else torch.uint8)
                self.state[p] = {"state1": moment, "state2": torch.zeros_like(moment)}
                if not small:
                    scales = p.new_zeros(-(-p.numel() // 256), dtype=torch.float32)
                    self.state[p] |= {"absmax1": scales, "absmax2": torch.zeros_like(scales)}


class FusedAdamW(torch.optim.Optimizer):
    """The states of PyTorch's fused AdamW: two moments and a counter each, and no temporaries."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            if not self.state[p]:
                moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                self.state[p] = {**moments, "step": p.new_zeros((), dtype=torch.float32)}


class MasterWeights:
    """Another optimizer on fp32 copies of half-precision weights: p.grad is widened, the copy stepped, p rewritten."""

    def __init__(self, trained: Sequence[Tensor], make: Callable[[Sequence[Tensor]], torch.optim.Optimizer]) -> None:
        self.trained = trained
        self.masters = [p if p.dtype == torch.float32 else p.detach().float().requires_grad_() for p in trained]
        self.optimizer = make(self.masters)
        self.param_groups = self.optimizer.param_groups

    @property
    def state(self) -> dict[Any, Any]:
        """The states, and the copies themselves."""
        copies = [m for p, m in zip(self.trained, self.masters, strict=True) if m is not p]
        return {**self.optimizer.state, None: dict(enumerate(copies))}

    def step(self) -> None:
        """All gradients widened at once, as a foreach copy does; then the step, and the weights written back."""
        for p, master in zip(self.trained, self.masters, strict=True):
            if master is not p and p.grad is not None:
                master.grad = p.grad.float()
        self.optimizer.step()
        with torch.no_grad():
            for p, master in zip(self.trained, self.masters, strict=True):
                if master is not p:
                    p.copy_(master)
                    master.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of the weights."""
        for p in self.trained:
            p.grad = None

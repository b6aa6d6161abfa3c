"""A frozen linear layer in 4 bits that an adapter trains through, and a model made of such layers: QLoRA's base.

    forward    W is turned back for a moment: y = x W^T + b        it is thrown away again
    backward   and once more:                 dx = dy W            so autograd keeps no W in 16 bits

The codes never train. What trains stands beside, in fp32, as beside any other frozen layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.errors import BadValue
from lora_lab.layers import out_by_in
from lora_lab.methods import bnb
from lora_lab.methods.attach import coded_layers, fingerprint, is_linear, put, refuse_adapted
from lora_lab.methods.formats import OUTSIDE
from lora_lab.methods.quantize import Quantized, format_of, quantize


class QuantizedLinear(nn.Module):
    """y = W x + b with W in a few bits; x (..., in) -> y (..., out), computed in x's dtype.

    For `nn.Linear` and GPT-2's `Conv1D`. `fast`: let bitsandbytes turn NF4 back where it is installed; same numbers.
    Raises: BadValue for an unknown format or a weight that is not finite.
    """

    plain_linear = True  # an adapter may stand beside it

    def __init__(self, layer: nn.Module, name: str = "nf4", *, fast: bool = True) -> None:
        super().__init__()
        held = quantize(out_by_in(layer), name)
        self.out_features, self.in_features = held.shape
        self.format, self.fast = held.format, fast
        self.packed: Tensor
        self.absmax: Tensor
        self.scales: Tensor | None
        self.offset: Tensor | None
        self.register_buffer("packed", held.packed)
        self.register_buffer("absmax", _as_bytes(held.absmax))
        self.register_buffer("scales", None if held.scales is None else _as_bytes(held.scales))
        self.register_buffer("offset", None if held.offset is None else _as_bytes(held.offset[None]))
        self.bias: Tensor | None = layer.bias  # type: ignore[assignment]

    @property
    def quantized(self) -> Quantized:
        """The weight as it is held."""
        shape = torch.Size((self.out_features, self.in_features))
        if self.scales is None or self.offset is None:
            return Quantized(self.format, shape, self.packed, self.absmax.view(torch.float32))
        scales, offset = (t.view(torch.float32) for t in (self.scales, self.offset))
        return Quantized(self.format, shape, self.packed, self.absmax, scales, offset[0])

    @property
    def numbers(self) -> int:
        """Weights that the codes stand for."""
        return self.out_features * self.in_features

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight as plain numbers (out_features, in_features): a new tensor, changing it changes nothing here."""
        if self.fast and bnb.can_dequantize(self.quantized):
            return bnb.dequantized(self.quantized, dtype)
        return self.quantized.dequantized(dtype)

    @property
    def weight(self) -> Tensor:
        """The same in fp32, where others ask a layer for its weight."""
        return self.dequantized()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self.bias, self)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self.format.name}"


class _Product(torch.autograd.Function):
    """x W^T + b, which keeps neither x, for W does not train, nor W, which is made anew."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dequantized(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (dy,) = gradients
        dx = dy @ ctx.layer.dequantized(dy.dtype) if ctx.needs_input_grad[0] else None
        db = dy.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return dx, db, None


def _as_bytes(numbers: Tensor) -> Tensor:
    """As bytes, so that `model.to(bfloat16)` leaves the scales alone: it casts whatever is a floating-point number."""
    return numbers.view(torch.uint8)


def quantize_model(model: nn.Module, name: str = "nf4", *, fast: bool = True) -> int:
    """Put a `QuantizedLinear` in the place of each linear layer of a plain model but its head; returns how many.

    Embeddings, norms, biases, head and BERT's pooler stay as they are, as with bitsandbytes. The model remembers the
    fingerprint of what it was, so an adapter knows its base in any number of bits.
    Raises: BadValue for an unknown format, a model with an adapter, one that is quantised already or has no such layer.
    """
    format_of(name)
    refuse_adapted(model)
    if coded_layers(model):
        raise BadValue("this model is quantised already; load it anew for another format")
    found = quantizable(model)
    if not found:
        raise BadValue("this model has no linear layer to quantise besides its head")
    model.lora_lab_fingerprint = fingerprint(model)  # type: ignore[assignment]
    for path in found:
        layer = model.get_submodule(path)
        put(model, path, QuantizedLinear(layer, name, fast=fast).train(layer.training))
    return len(found)


def quantizable(model: nn.Module) -> list[str]:
    """The paths of a plain model's linear layers, those outside its layers (head, pooler) not among them."""
    linear = (path for path, module in model.named_modules() if is_linear(module))
    return [path for path in linear if set(path.split(".")).isdisjoint(OUTSIDE)]

"""Quantization to NF4 and similar formats, and linear layers that store frozen weights in these formats, as in QLoRA.

    1  Cut the weight into blocks of 64 values. The scale of a block, `absmax`, is its largest |w|.
    2  Divide weights by absmax to get values from -1 to 1. A code is the index of the nearest of 2^bits fixed levels.
    3  Pack two 4-bit codes into a byte, which takes 4 bits per weight.
    4  Quantize absmax, minus its mean, to 8 bits in blocks of 256 ("double quantization"); see `bits_per_weight`.
    5  Dequantize codes as level[code] * absmax, once in forward and once in backward, without keeping the result.

The levels of NF4 are quantiles of the normal distribution. Trained weights are close to normal, so the levels are dense
where most weights lie. Codes, scales and values equal those of bitsandbytes bit for bit, so its kernel can read them.
Sources: "QLoRA", Dettmers et al. 2023 (arXiv:2305.14314), section 3 and appendix E; for the levels of double
quantization, "8-bit Optimizers via Block-wise Quantization", Dettmers et al. 2022 (arXiv:2110.02861).
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.adapter_layer import is_conv1d, out_by_in
from lora_lab.errors import BadValue, nearest
from lora_lab.methods.attach import fingerprint, is_linear, put, quantized_layers, refuse_adapted
from lora_lab.methods.targets import BLOCK, NESTED, OUTSIDE, QUANTIZED_BITS

STRIP = 1024  # number of blocks to dequantize at a time, so that little memory is needed besides the result
FP32: Any = {"dtype": torch.float32, "device": "cpu"}  # of a format's tables, whatever torch's defaults are
HALF_GRID = 65_535 / 2  # on CPU, bitsandbytes rounds scales to a grid of 65,536 points before looking up the code


def levels_of(name: str) -> Tensor:
    """Return the values that a format's codes represent: at most 2^bits sorted fp32 levels from -1 to 1.

    "int" levels are evenly spaced. "nf" levels are 0, 2^(bits-1) positive quantiles and 2^(bits-1) - 1 negative
    quantiles, divided by the largest one. The probabilities of these quantiles are evenly spaced from 1/2 to
    1 - (1/2^(bits+1) + 1/(2^(bits+1) - 2)) / 2, which is 0.9677083 for 4 bits.
    """
    half = 2 ** (QUANTIZED_BITS[name] - 1)
    if not name.startswith("nf"):
        return torch.arange(1 - half, half, **FP32) / (half - 1)
    outermost = round(1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2, 7)
    probabilities = (torch.linspace(outermost, 0.5, count + 1, **FP32)[:-1].double() for count in (half, half - 1))
    positive, negative = (torch.special.ndtri(p).float() for p in probabilities)
    levels = torch.cat([-negative, torch.zeros(1, **FP32), positive]).sort().values
    return levels / levels.max()


@lru_cache(maxsize=1)
def dynamic_levels() -> Tensor:
    """Return the 256 levels of quantized scales: 0, 1 and, in each of seven decades, 1, 2, 4, ..., 64 of each sign."""
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, **FP32)
        centers = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [*centers.tolist(), *(-centers).tolist()]
    return torch.tensor(sorted(levels), **FP32)


@dataclass(frozen=True)
class Quantized:
    """A quantized weight. `format` is a key of `targets.QUANTIZED_BITS`.

    packed   The codes, (blocks * 64 * bits / 8,) in uint8, where the last block is padded with zeros.
    absmax   The largest |w| of each block, (blocks,) in fp32, or as uint8 codes with double quantization.
    scales   With double quantization, fp32 scales (ceil(blocks / 256),) and `offset` (1,), the mean of absmax.
    """

    format: str
    shape: torch.Size
    packed: Tensor
    absmax: Tensor
    scales: Tensor | None = None
    offset: Tensor | None = None

    def dequantized(self, dtype: torch.dtype = torch.float32, *, fast: bool = False) -> Tensor:
        """Return level[code] * absmax as a new tensor, computed in fp32 and rounded once to `dtype`.

        With `fast`, use bitsandbytes' kernel if it supports the weight and `dtype`. The kernel returns the same values.
        """
        device = self.packed.device
        if self.scales is None or self.offset is None:
            absmax = self.absmax.view(torch.float32)  # layers store fp32 as bytes
        else:
            nested = _blocks(dynamic_levels().to(device)[self.absmax.int()], NESTED)
            nested = nested * self.scales.view(torch.float32)[:, None]
            absmax = nested.flatten()[: len(self.absmax)] + self.offset.view(torch.float32)
        supported = self.format.startswith("nf4") and self.shape[-1:].numel() % BLOCK == 0
        supported &= dtype != torch.float64  # the kernel would return uninitialized memory
        if fast and supported and device.type in ("cpu", "cuda") and import_bitsandbytes():
            kernel = torch.ops.bitsandbytes.dequantize_4bit.default
            return kernel(self.packed[:, None], absmax, BLOCK, "nf4", self.shape, dtype)
        width, table = _lookup(self.format)
        table, packed = table.to(device), self.packed.view(len(absmax), -1)
        weight = torch.empty(len(absmax), BLOCK, dtype=dtype, device=device)
        for start in range(0, len(absmax), STRIP):
            strip = slice(start, start + STRIP)
            values = F.embedding(regroup(packed[strip].flatten(), 8, width), table)
            weight[strip] = values.view(-1, BLOCK).mul_(absmax[strip, None])
        return weight.flatten()[: self.shape.numel()].view(self.shape)


def quantize(weight: Tensor, name: str = "nf4") -> Quantized:
    """Quantize a weight of any shape. Raises: BadValue for an unknown format or a weight with NaN or infinity."""
    if name not in QUANTIZED_BITS:
        raise BadValue(f"'{name}' is not a quantization format; use {nearest(name, QUANTIZED_BITS)}")
    blocks = _blocks(weight.detach().float().flatten(), BLOCK)
    absmax = blocks.abs().amax(1)
    if not bool(absmax.isfinite().all()):
        raise BadValue("cannot quantize a weight with NaN or infinity: check the checkpoint that it was loaded from")
    packed = regroup(_codes(blocks, absmax, levels_of(name)), QUANTIZED_BITS[name], 8).to(torch.uint8)
    if name.endswith("-single"):
        return Quantized(name, weight.shape, packed, absmax)
    offset = absmax.mean().view(1)  # every absmax is near the mean, so 8 bits suffice for the difference
    groups = _blocks(absmax - offset, NESTED)
    scales = groups.abs().amax(1)
    codes = _codes(groups, scales, dynamic_levels(), on_grid=True)[: len(absmax)].clone()
    return Quantized(name, weight.shape, packed, codes, scales, offset)


def _codes(blocks: Tensor, absmax: Tensor, levels: Tensor, *, on_grid: bool = False) -> Tensor:
    """Divide values by their block's absmax, and return the nearest levels' indices as uint8, by binary search.

    As in bitsandbytes, each block is multiplied by the reciprocal of its absmax. Blocks of zeros stay zero.
    """
    scaled = (blocks * (1 / absmax.clamp(min=1e-38))[:, None]).clamp(-1, 1)
    if on_grid:
        scaled = ((scaled + 1) * HALF_GRID + 0.5).floor() / HALF_GRID - 1
    midpoints = ((levels[1:] + levels[:-1]) / 2).to(scaled.device)
    return torch.bucketize(scaled, midpoints, out_int32=True).to(torch.uint8).flatten()


def regroup(values: Tensor, width: int, new_width: int) -> Tensor:
    """Regroup bits, highest first, into integers of another width. Eight 3-bit codes, for example, become 3 bytes."""
    if width == new_width:
        return values.int()
    word = math.lcm(width, new_width)
    old, new = (torch.arange(word - w, -1, -w, dtype=torch.int32, device=values.device) for w in (width, new_width))
    words = (values.view(-1, word // width).int() << old).sum(1, keepdim=True, dtype=torch.int32)
    return ((words >> new) & (2**new_width - 1)).flatten()


@lru_cache(maxsize=8)
def _lookup(name: str) -> tuple[int, Tensor]:
    """Return the width in bits of a lookup table's index, and the table. A byte of 4-bit codes maps to 2 levels."""
    levels, bits = levels_of(name), QUANTIZED_BITS[name]
    width = 8 if 8 % bits == 0 else bits
    codes = regroup(torch.arange(2**width, device="cpu"), width, bits)
    return width, levels[codes.clamp(max=len(levels) - 1)].view(2**width, -1)


def _blocks(values: Tensor, size: int) -> Tensor:
    """Split values (n,) into blocks (ceil(n / size), size) that are padded with zeros."""
    return F.pad(values, (0, -len(values) % size)).view(-1, size)


@lru_cache(maxsize=1)
def import_bitsandbytes() -> ModuleType | None:
    """Return bitsandbytes, or None if it is not installed or fails to import."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)  # on import, bitsandbytes warns about packages that aren't needed here
    try:
        with warnings.catch_warnings(action="ignore"):
            return import_module("bitsandbytes")
    except Exception:  # the build may be for another CUDA version
        return None
    finally:
        logger.setLevel(level)


class QuantizedLinear(nn.Module):
    """A linear layer y = W x + b with a quantized, frozen W. Shapes: x (..., in_features), y (..., out_features).

    The layer replaces an `nn.Linear` or GPT-2's `Conv1D` and computes in x's dtype. If bitsandbytes is installed, the
    layer uses it to dequantize W. For errors, see `quantize`.
    """

    plain_linear = True  # adapters can be attached to it
    packed: Tensor

    def __init__(self, layer: nn.Module, name: str = "nf4") -> None:
        super().__init__()
        quantized = quantize(out_by_in(layer), name)
        self.out_features, self.in_features = quantized.shape
        self.format, self.conv1d = name, is_conv1d(layer)
        self.numbers = self.out_features * self.in_features
        for field in ("packed", "absmax", "scales", "offset"):
            values = getattr(quantized, field)
            # Store bytes, because model.to(bfloat16) casts floating-point buffers, which would round the scales.
            self.register_buffer(field, None if values is None else values.reshape(-1).view(torch.uint8))
        self.bias: Tensor | None = layer.bias  # type: ignore[assignment]

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return W (out_features, in_features) as a new tensor. Changing this tensor does not change the layer."""
        buffers: Any = (self.packed, self.absmax, self.scales, self.offset)
        quantized = Quantized(self.format, torch.Size((self.out_features, self.in_features)), *buffers)
        return quantized.dequantized(dtype, fast=True)

    @property
    def weight(self) -> Tensor:
        """The weight W in fp32, for code that reads a layer's weight."""
        return self.dequantized()

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self.bias, self)  # type: ignore[no-any-return,no-untyped-call]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, format={self.format}"


class _Product(torch.autograd.Function):
    """Compute x W^T + b and save no tensor for backward. W is frozen, so x isn't needed, and W is dequantized again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.dequantized(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        dx = dy @ ctx.layer.dequantized(dy.dtype) if ctx.needs_input_grad[0] else None
        db = dy.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return dx, db, None


def quantize_model(model: nn.Module, name: str = "nf4") -> int:
    """Replace every linear layer of a plain model, except its head, with a `QuantizedLinear`. Return their number.

    Embeddings, norms, biases, the head and BERT's pooler are unchanged; with bitsandbytes, transformers also quantizes
    BERT's pooler and the head of its classifiers. The model keeps the fingerprint of its original weights, so adapters
    recognize their base model in any format.
    Raises: BadValue if the model has an adapter, is already quantized, or has no linear layers; see also `quantize`.
    """
    refuse_adapted(model)
    if quantized_layers(model):
        raise BadValue("this model is already quantized; load it again to use another format")
    head = getattr(model, "get_output_embeddings", lambda: None)()  # its name may not be in OUTSIDE, as with BERT
    linear = (path for path, module in model.named_modules() if is_linear(module) and module is not head)
    if not (paths := [path for path in linear if set(path.split(".")).isdisjoint(OUTSIDE)]):
        raise BadValue("this model has no linear layers to quantize other than its head")
    model.lora_lab_fingerprint = fingerprint(model)  # type: ignore[assignment]
    for path in paths:
        layer = model.get_submodule(path)
        put(model, path, QuantizedLinear(layer, name).train(layer.training))
    return len(paths)

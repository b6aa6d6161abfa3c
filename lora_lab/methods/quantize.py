"""NF4 and its kin from scratch: a weight in 4 bits (or 8, 3, 2), in blocks of 64 with a scale each.

    1  cut the weight into blocks of 64 numbers; absmax = the largest |w| of each
    2  w / absmax lies in -1..1; take the nearest of 2^bits fixed levels, and write down its number, the code
    3  two 4-bit codes make a byte                                        4 bits a weight
    4  an fp32 absmax a block is 32/64 = 0.5 bits more, so quantise these as well ("double quantisation"):
       less their mean, in blocks of 256, to 8 bits                       8/64 + 32/(64 * 256) = 0.127 bits

    back: level[code] * absmax

The levels of NF4 are quantiles of the normal distribution, for that is how trained weights lie: each code is then used
about equally often. Source: Dettmers et al. 2023, "QLoRA", section 3 and appendix E; the 8-bit levels are those of
Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization". Codes and values equal bitsandbytes' to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from lora_lab.errors import BadValue, nearest
from lora_lab.methods.formats import BLOCK, NESTED, QUANTISED_BITS

STRIP = 2**16  # numbers that are turned back at a time: whole blocks of blocks, and little memory beside the result
STEPS = 65_535  # bitsandbytes finds a scale's code in a table of so many steps on a CPU, and so do we: equal to the bit


@dataclass(frozen=True)
class Format:
    """How a weight is held. `levels`: 2^bits sorted numbers from -1 to 1; `double`: whether scales are in 8 bits."""

    name: str
    bits: int
    double: bool

    @property
    def levels(self) -> Tensor:
        """The numbers that a code may stand for, (2^bits,) or fewer, fp32."""
        return normal_float(self.bits) if self.name.startswith("nf") else uniform(self.bits)


FORMATS: Mapping[str, Format] = {
    name: Format(name, bits, double=not name.endswith("-single")) for name, bits in QUANTISED_BITS.items()
}


def format_of(name: str) -> Format:
    """A format by its name. Raises: BadValue naming those there are."""
    if name not in FORMATS:
        raise BadValue(f"a weight can be held as {nearest(name, FORMATS)}, not as '{name}'")
    return FORMATS[name]


def normal_float(bits: int) -> Tensor:
    """The levels of NF4, or of other widths by the same rule: quantiles of a normal distribution, scaled to -1..1.

    2^(bits-1) of them above 0 and one less below, and 0 itself, which must be exact: padding and dead weights are 0.
    The outermost quantile is 1 - (1/2^(bits+1) + 1/(2^(bits+1) - 2)) / 2, of 4 bits 0.9677083. Source: QLoRA, app. E.
    """
    outermost = round(1 - (1 / 2 ** (bits + 1) + 1 / (2 ** (bits + 1) - 2)) / 2, 7)
    above, below = (_normal_quantiles(outermost, 2 ** (bits - 1) - less) for less in (0, 1))
    levels = torch.cat([-below, torch.zeros(1), above]).sort().values
    return levels / levels.max()


def _normal_quantiles(outermost: float, count: int) -> Tensor:
    """Where a standard normal variable lies below, with `count` evenly spaced probabilities from outermost to 1/2."""
    probabilities = torch.linspace(outermost, 0.5, count + 1)[:-1]
    return torch.special.ndtri(probabilities.double()).float()


def uniform(bits: int) -> Tensor:
    """Evenly spaced levels, as an int8 or int4 has them: -(2^(bits-1) - 1) .. 2^(bits-1) - 1, over the largest."""
    most = 2 ** (bits - 1) - 1
    return torch.arange(-most, most + 1) / most


@lru_cache(maxsize=1)
def dynamic_levels() -> Tensor:
    """The 256 levels of the scales: finer towards 0. In each of seven powers of ten, 1, 2, 4, ... 64 of either sign."""
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        middles = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(levels))


@dataclass(frozen=True)
class Quantized:
    """A quantised weight of a shape: codes, packed; of each block a scale, as it is or as an 8-bit code.

    packed   (ceil(numbers / 64) * 64 * bits / 8,) uint8
    absmax   (blocks,) fp32, or uint8 with double quantisation
    scales   (ceil(blocks / 256),) fp32, and `offset` (), the mean of all absmax; None without double quantisation
    """

    format: Format
    shape: torch.Size
    packed: Tensor
    absmax: Tensor
    scales: Tensor | None = None
    offset: Tensor | None = None

    @property
    def bits_per_weight(self) -> float:
        """All that is held, in bits, over the numbers of the weight."""
        held = [t for t in (self.packed, self.absmax, self.scales, self.offset) if t is not None]
        return 8 * sum(t.numel() * t.element_size() for t in held) / self.shape.numel()

    def block_scales(self) -> Tensor:
        """The absmax of each block (blocks,), fp32: exact, or as the 8 bits have kept it."""
        if self.scales is None or self.offset is None:
            return self.absmax
        levels = dynamic_levels().to(self.absmax.device)[self.absmax.int()]
        return _by_block(levels, NESTED).mul_(self.scales[:, None]).flatten()[: len(self.absmax)] + self.offset

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight again, level[code] * absmax, in fp32 and rounded once to `dtype`. Shape: as it was."""
        numbers, bits, scales = self.shape.numel(), self.format.bits, self.block_scales()
        weight = torch.empty(numbers, dtype=dtype, device=self.packed.device)
        for start in range(0, numbers, STRIP):
            stop = min(start + STRIP, math.ceil(numbers / BLOCK) * BLOCK)
            values = values_of(self.packed[start * bits // 8 : stop * bits // 8], self.format).view(-1, BLOCK)
            values.mul_(scales[start // BLOCK : stop // BLOCK, None])
            weight[start:stop] = values.flatten()[: numbers - start]
        return weight.view(self.shape)


def quantize(weight: Tensor, name: str = "nf4") -> Quantized:
    """A weight of any shape in a format: "nf4", "int8", "nf3", "nf2"; with "-single" scales stay fp32.

    Raises: BadValue for an unknown format, or a weight with NaN or infinity in it.
    """
    form = format_of(name)
    blocks = _by_block(weight.detach().float().flatten(), BLOCK)  # (blocks, 64)
    absmax = blocks.abs().amax(1)
    if not bool(absmax.isfinite().all()):
        raise BadValue("a weight with NaN or infinity in it cannot be quantised: look where it came from")
    packed = pack(codes_of(_scaled(blocks, absmax), form.levels), form.bits)
    if not form.double:
        return Quantized(form, weight.shape, packed, absmax)
    return Quantized(form, weight.shape, packed, *quantize_scales(absmax))


def quantize_scales(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Double quantisation. Shapes: absmax (blocks,) -> codes (blocks,) uint8, scales (blocks / 256,), offset ().

    All absmax are above 0 and much alike, so their mean is taken off first and the 8 bits spent on what is left.
    """
    offset = absmax.mean()
    groups = _by_block(absmax - offset, NESTED)
    scales = groups.abs().amax(1)
    steps = ((_scaled(groups, scales) + 1) * (STEPS / 2) + 0.5).floor()
    stepped = steps / (STEPS / 2) - 1
    return codes_of(stepped, dynamic_levels()).flatten()[: len(absmax)], scales, offset


def codes_of(scaled: Tensor, levels: Tensor) -> Tensor:
    """The number of the nearest level for each value, uint8: by bisection between the middles of neighbours."""
    middles = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(scaled, middles.to(scaled.device), out_int32=True).to(torch.uint8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes side by side in bytes, the first in the highest bits; 3-bit codes eight in three bytes.

    Shapes: codes (n,) -> (n * bits / 8,), both uint8; n a multiple of 8, which whole blocks are.
    """
    count, size = _group(bits)
    groups = codes.flatten().view(-1, count)
    word = torch.zeros(len(groups), dtype=torch.int32, device=codes.device)
    for place in range(count):
        word = word << bits | groups[:, place]
    return torch.stack([word >> 8 * (size - 1 - b) & 255 for b in range(size)], dim=1).to(torch.uint8).flatten()


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The inverse of `pack`: (n * bits / 8,) uint8 -> (n,) int32, as an index is wanted."""
    count, size = _group(bits)
    bytes_ = packed.view(-1, size).int()
    word = bytes_[:, 0]
    for b in range(1, size):
        word = word << 8 | bytes_[:, b]
    mask = 2**bits - 1
    return torch.stack([word >> bits * (count - 1 - place) & mask for place in range(count)], dim=1).flatten()


def values_of(packed: Tensor, form: Format) -> Tensor:
    """The level of each code in these bytes. Where codes fill bytes, all levels of a byte are looked up at once."""
    if 8 % form.bits:
        return F.embedding(unpack(packed, form.bits), form.levels.to(packed.device)[:, None])
    return F.embedding(packed.int(), _levels_of_bytes(form).to(packed.device))


@lru_cache(maxsize=8)
def _levels_of_bytes(form: Format) -> Tensor:
    """What each of the 256 bytes stands for, (256, codes in a byte)."""
    codes = unpack(torch.arange(256, dtype=torch.uint8), form.bits)
    return form.levels[codes.clamp(max=len(form.levels) - 1)].view(256, -1)


def _group(bits: int) -> tuple[int, int]:
    """The fewest codes that fill whole bytes, and how many bytes those are: of 3 bits (8, 3), of 4 (2, 1)."""
    whole = math.lcm(bits, 8)
    return whole // bits, whole // 8


def _by_block(values: Tensor, size: int) -> Tensor:
    """(n,) -> (ceil(n / size), size), filled up with zeros."""
    return F.pad(values, (0, -len(values) % size)).view(-1, size)


def _scaled(blocks: Tensor, absmax: Tensor) -> Tensor:
    """Each block over its absmax, -1..1; by the reciprocal, as bitsandbytes does. A block of zeros stays zeros."""
    return (blocks * (1 / absmax.clamp(min=1e-38))[:, None]).clamp(-1, 1)

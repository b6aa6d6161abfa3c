"""Merging: what a method trained becomes part of the weights, and comes out again.

    merge           W' = W + scaling * B A in a copy of the layer, which replaces the original; as fast as the base
    unmerge         the original layers return, to the bit
    merge_for_good  the original layers are dropped; what is left is a plain transformers model

    rounding / update = ||W' - stored|| / ||W' - W||      W' in fp32, stored: rounded to W's dtype
    lost                                                  numbers that should have moved and did not

bf16 has 8 bits: the next number after 1 is 1.0078, so an update of 0.003 is lost.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import AdapterLayer, is_conv1d, out_by_in
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import (
    TrainedCopy,
    adapter_layers,
    adapters,
    plain_path,
    put,
    remove_adapters,
    report_of,
)  # fmt: skip
from lora_lab.methods.base import Report
from lora_lab.methods.lora_layers import LoRAEmbedding

SHORT = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


@dataclass(frozen=True)
class Rounding:
    """What happened to one tensor. `update` and `rounding` are norms, `numbers` and `lost` are counts."""

    module: str
    dtype: str
    numbers: int
    update: float
    rounding: float
    lost: int

    @property
    def relative(self) -> float:
        """||rounding|| / ||update||; 0 without an update."""
        return self.rounding / self.update if self.update else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"relative": self.relative}


def rounding_of(module: str, frozen: Tensor, new: Tensor) -> Rounding:
    """What is lost when `new` (fp32) is stored in the dtype of `frozen`, which has the same shape."""
    old, stored, new = frozen.detach().float(), new.detach().to(frozen.dtype).float(), new.detach()
    lost = int(((new != old) & (stored == old)).sum())
    dtype = SHORT.get(str(frozen.dtype), str(frozen.dtype))
    return Rounding(module, dtype, old.numel(), float((new - old).norm()), float((new - stored).norm()), lost)


@dataclass(frozen=True)
class MergeReport:
    """What merging did to a model.

    rounded       each merged tensor, in the model's order
    untied        layers that shared their weight with another layer and now have their own
    dequantised   layers that were quantized and are plain now
    added_bytes   what these two, and a conversion to fp32, add to the model's weights
    heads         each tensor of a trained head after `merge_for_good`; its `update` is the whole tensor
    """

    rounded: tuple[Rounding, ...]
    untied: tuple[str, ...] = ()
    dequantised: tuple[str, ...] = ()
    added_bytes: int = 0
    heads: tuple[Rounding, ...] = ()

    @property
    def rounding(self) -> float:
        """||rounding|| / ||update|| over all merged tensors; 0 in fp32."""
        update = math.hypot(*(r.update for r in self.rounded))
        return math.hypot(*(r.rounding for r in self.rounded)) / update if update else 0.0

    @property
    def lost(self) -> float:
        """The fraction of all merged numbers that should have moved and did not."""
        return sum(r.lost for r in self.rounded) / max(sum(r.numbers for r in self.rounded), 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values: the totals and each tensor."""
        return {
            "rounding": self.rounding,
            "lost": self.lost,
            "added_bytes": self.added_bytes,
            "untied": list(self.untied),
            "dequantised": list(self.dequantised),
            "tensors": [rounding.to_json() for rounding in self.rounded],
            "heads": [rounding.to_json() for rounding in self.heads],
        }

    def __str__(self) -> str:
        count, dtypes = len(self.rounded), " and ".join(sorted({r.dtype for r in self.rounded}))
        lines = [f"{count} tensor{'s' * (count != 1)} merged in {dtypes}"]
        if not count:
            lines = ["nothing was merged into a weight"]
        elif self.rounding:
            worst = max(self.rounded, key=lambda r: r.relative)
            lines[0] += (
                f": rounding is {self.rounding:.1%} of the update (most in {worst.module}: {worst.relative:.1%}), and "
                f"{self.lost:.1%} of the numbers did not move at all; merge in fp32 to keep them"
            )
        else:
            lines[0] += ", which rounds only the sum itself"
        if self.untied:
            lines.append(f"untied: {', '.join(self.untied)}, so that only one of two layers changes")
        if self.dequantised:
            lines.append(f"dequantized: {len(self.dequantised)} layers ({self.dequantised[0]}, ...)")
        if self.untied or self.dequantised:
            lines.append(f"the weights grow by {self.added_bytes:,} bytes")
        return "\n".join(lines)


def merge(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Fold what was trained into the weights, so that the model runs as fast as its base.

    The original of each merged layer is kept for `unmerge`, so the merged weights are in memory twice. A trained head
    stays beside the frozen one, where it costs nothing. What is merged already is left alone.

    fp32    convert the model to fp32 first, so that nothing is rounded; after `unmerge` it stays fp32
    Raises: BadValue if there is no adapter, if no weight can hold the update (prompts, bottlenecks), and if the result
    would not be finite; nothing is merged then.
    """
    return _merge(model, fp32, keep=True)


def merge_for_good(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Fold in what was trained, the head too, and leave a plain transformers model with no quantized layer.

    It cannot be unmerged. Options and errors: as `merge`.
    """
    report = _merge(model, fp32, keep=False)
    before, heads = _bytes(model), list[Rounding]()
    for path, part in adapter_layers(model):
        if type(part) is TrainedCopy:  # the copy becomes the head itself, in the base's dtype
            dtype = next(part.base_layer.parameters()).dtype
            trained = part.trained.named_parameters()
            heads += [rounding_of(f"{path}.{name}", torch.zeros_like(p, dtype=dtype), p) for name, p in trained]
            part.base_layer = part.trained.to(dtype).requires_grad_(False)
    quantized = [path for path, layer in model.named_modules() if hasattr(layer, "dequantized")]
    for path in quantized:
        put(model, path, _dequantized(model.get_submodule(path), _dtype(model)))
    if any(part.tied for _, part in adapter_layers(model)):
        _untie(model)
    added = report.added_bytes + _bytes(model) - before
    remove_adapters(model)
    return replace(report, dequantised=(*report.dequantised, *quantized), added_bytes=added, heads=tuple(heads))


def unmerge(model: nn.Module) -> None:
    """Put the original layer of every merged adapter back. Raises: BadValue if there is no adapter."""
    report_of(model)
    for _, part in adapter_layers(model):
        part.merged = False
        if part.original:
            if part.tied:
                _set_tied(model, True)
            _swap(part)
            part.original, part.tied = (), False


def detach(model: nn.Module) -> None:
    """Remove the adapter, and its head: the model is what it was before attaching, but frozen.

    Raises: BadValue if there is no adapter, and if the base itself trained.
    """
    _refuse_trained_base(model)
    unmerge(model)
    remove_adapters(model)


@contextmanager
def disabled(model: nn.Module, *, keep_head: bool = False) -> Iterator[None]:
    """In the block the model computes what it did before attaching; keep_head keeps the trained head.

    Raises: BadValue if the base itself trained.
    """
    _refuse_trained_base(model)
    before = [(part, part.enabled) for _, part in adapters(model) if not (keep_head and part.head)]
    merged = [part for part, _ in before if isinstance(part, AdapterLayer) and part.original]
    for part, _ in before:
        part.enabled = False
    for part in merged:
        _swap(part)
    try:
        yield
    finally:
        for part in merged:
            _swap(part)
        for part, enabled in before:
            part.enabled = enabled


@contextmanager
def at_strength(model: nn.Module, strength: float) -> Iterator[None]:
    """In the block y = W x + strength * scaling * B A x: 0 is the base, 1 as trained. A trained head stays.

    Raises: BadValue for a strength other than 0 and 1 unless the adapter is plain LoRA and not merged.
    """
    parts: list[Any] = [part for _, part in adapters(model) if not part.head]
    if strength in (0, 1):
        with disabled(model, keep_head=True) if strength == 0 else nullcontext():
            yield
        return
    if not all(type(part) in (LoRALinear, LoRAEmbedding) and not part.merged for part in parts):
        name = report_of(model).method.name
        raise BadValue(f"a strength of {strength:g} takes plain LoRA, unmerged; this {name} is on (1) or off (0)")
    before = [part.scaling for part in parts]
    try:
        for part in parts:
            part.scaling *= strength
        yield
    finally:
        for part, scaling in zip(parts, before, strict=True):
            part.scaling = scaling


def _refuse_trained_base(model: nn.Module) -> None:
    report = getattr(model, "lora_lab_report", None)
    if isinstance(report, Report) and report.method.trains_base:
        raise BadValue(f"{report.method.name} trained the base's own weights, which cannot be undone; reload the base")


@torch.no_grad()
def _merge(model: nn.Module, fp32: bool, *, keep: bool) -> MergeReport:
    """Compute and check every merged tensor; then compute it again and store it, so that one is in memory at a time."""
    method = report_of(model).method.name
    around: dict[str, list[AdapterLayer]] = {}  # the adapters of each layer, the innermost first
    for path, part in adapters(model):
        if part.unmergeable:
            raise BadValue(f"{method} cannot be merged: it {part.unmergeable}; keep its adapter file")
        if isinstance(part, AdapterLayer) and not part.head and not part.merged:
            around.setdefault(plain_path(path), []).insert(0, part)
    dtype, rounded = torch.float32 if fp32 else _dtype(model), list[Rounding]()
    for path, parts in around.items():
        layer, merged = _merged(parts, dtype)
        rounded += [_checked(path, getattr(layer, name), new, fp32) for name, new in merged.items()]
    size = _bytes(model)
    if fp32:
        model.float()
    uses = Counter(id(m._parameters["weight"]) for m in model.modules() if m._parameters.get("weight") is not None)
    untied, dequantised = list[str](), list[str]()
    for path, parts in around.items():
        holder, frozen = parts[0], parts[0].base_layer
        layer, merged = _merged(parts, dtype)
        if layer is not frozen:
            dequantised.append(path)
        elif "weight" in merged and uses[id(frozen.weight)] > 1:
            holder.tied = True
            untied.append(path)
        layer = copy.copy(layer)
        layer._parameters = dict(layer._parameters)
        for name, new in merged.items():
            stored = new.to(getattr(layer, name).dtype, copy=True)
            layer._parameters[name] = nn.Parameter(stored, requires_grad=False)
        holder.base_layer = layer
        holder.original = (frozen,) if keep else ()
        for part in parts:
            part.merged = True
    if untied:
        _set_tied(model, False)
    return MergeReport(tuple(rounded), tuple(untied), tuple(dequantised), _bytes(model) - size)


def _merged(parts: list[AdapterLayer], dtype: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """The frozen layer inside these adapters, dequantized, and its tensors with their updates, in fp32."""
    layer = parts[0].base_layer
    if hasattr(layer, "dequantized"):
        layer = _dequantized(layer, dtype)
    own: Any = getattr(layer, "bias", None)
    old = weight, bias = out_by_in(layer).float(), None if own is None else own.float()
    for part in parts:
        weight, bias = part.merged_weights(weight, bias)
    new = {} if weight is old[0] else {"weight": weight.t().contiguous() if is_conv1d(layer) else weight}
    return layer, new if bias is old[1] or bias is None else {**new, "bias": bias}


def _checked(module: str, frozen: Tensor, new: Tensor, fp32: bool) -> Rounding:
    """Raises BadValue if `new` cannot be stored in the dtype of `frozen`, or in fp32."""
    if not frozen.is_floating_point():
        raise BadValue(f"cannot merge into a weight of {frozen.dtype}: load the base in fp32 or bf16 first")
    frozen = frozen.float() if fp32 else frozen
    if not new.to(frozen.dtype).isfinite().all():
        why = "the adapter holds NaN or infinity" if not new.isfinite().all() else f"{frozen.dtype} cannot hold it"
        raise BadValue(f"cannot merge: the merged weight would not be finite, for {why}")
    return rounding_of(module, frozen, new)


def _swap(part: AdapterLayer) -> None:
    """Exchange the merged copy and the original, which follows the model to its device and dtype."""
    now, other = part.base_layer, part.original[0]
    quantized = hasattr(now, "dequantized") or hasattr(other, "dequantized")
    like = next(iter(now.state_dict().values()))
    other.to(like.device if quantized else like)  # type: ignore[arg-type]
    part.base_layer, part.original = other, (now,)


def _set_tied(model: nn.Module, tied: bool) -> None:
    """Say it in the config: transformers would otherwise tie the two layers again when a checkpoint is loaded."""
    config: Any = getattr(model, "config", None)
    for known in (config, config.get_text_config()) if config is not None else ():
        known.tie_word_embeddings = tied


def _untie(model: nn.Module) -> None:
    """Give each layer a parameter of its own, as a checkpoint that says "untied" must: in BART four layers share one.

    This includes biases: BERT's language model shares that of its decoder.
    """
    seen = set[int]()
    for module in model.modules() if hasattr(model, "config") else ():
        for name, own in module._parameters.items():
            if own is not None and id(own) in seen:
                setattr(module, name, nn.Parameter(own.detach().clone(), requires_grad=own.requires_grad))
            seen.add(id(own))


@torch.no_grad()
def _dequantized(layer: Any, dtype: torch.dtype) -> nn.Module:
    """The plain linear layer that computes what a quantized one does; a Conv1D if it was one."""
    from transformers.pytorch_utils import Conv1D

    weight, bias = layer.dequantized(dtype), layer.bias  # (out, in)
    outputs, inputs = weight.shape
    with torch.device("meta"):
        plain = Conv1D(outputs, inputs) if layer.conv1d else nn.Linear(inputs, outputs, bias=bias is not None)
    plain.weight = nn.Parameter(weight.t().contiguous() if layer.conv1d else weight, requires_grad=False)
    if bias is not None:
        plain.bias = nn.Parameter(bias.detach().to(dtype, copy=True), requires_grad=False)
    return plain.train(layer.training)


def _dtype(model: nn.Module) -> torch.dtype:
    """Of the base's own numbers that are not quantized."""
    frozen = (p.dtype for p in model.parameters() if p.is_floating_point() and not p.requires_grad)
    return next(frozen, torch.float32)  # without biases nothing may be left that is not quantized


def _bytes(model: nn.Module) -> int:
    """Of the model's weights with its adapters; a weight that two layers share counts once."""
    different = {t.data_ptr(): t for t in model.state_dict().values()}
    return sum(t.numel() * t.element_size() for t in different.values())

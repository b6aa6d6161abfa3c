"""Merge trained updates into the weights, or undo a merge.

    merge:            stores W' = W + scaling * B A in a copy of the layer, which replaces the original layer
    unmerge:          restores the original layers, bit for bit
    merge_for_good:   discards the original layers and leaves a plain transformers model
    rounding / update = ||W' - stored|| / ||W' - W||      # W' is in fp32, and `stored` is W' rounded to W's dtype
    lost                                                  # the number of values that should change but do not

bf16 has 8 bits of precision: the number after 1 is 1.0078, so an update of 0.003 to a weight of 1 is lost.
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
from lora_lab.methods import attach
from lora_lab.methods.base import is_number, plain
from lora_lab.methods.lora_layers import LoRAEmbedding

SCALED_IF_TIED = ("switch_transformers", "udop")  # models whose `forward` depends on whether embeddings are tied
SHORT = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


@dataclass(frozen=True)
class Rounding:
    """The effect of rounding on one tensor. `relative` is rounding / update, or 0 if there is no update."""

    module: str
    dtype: str
    numbers: int
    update: float
    rounding: float
    lost: int
    relative: float


def rounding_of(module: str, frozen: Tensor, new: Tensor) -> Rounding:
    """Measure what is lost when the fp32 tensor `new` is stored in the dtype of `frozen`, which has the same shape."""
    old, stored, new = frozen.detach().float(), new.detach().to(frozen.dtype).float(), new.detach()
    lost = int(((new != old) & (stored == old)).sum())
    dtype = SHORT.get(str(frozen.dtype), str(frozen.dtype))
    update, rounding = float((new - old).norm()), float((new - stored).norm())
    return Rounding(module, dtype, old.numel(), update, rounding, lost, rounding / update if update else 0.0)


@dataclass(frozen=True)
class MergeReport:
    """A report on what merging did to a model.

    rounded       The effect of rounding on each merged tensor, in the model's order.
    untied        Layers that shared their weight with another layer and now have a weight of their own.
    dequantized   Layers that were quantized before the merge and are not quantized now.
    added_bytes   The bytes added to the model's weights by untying, dequantizing and converting to fp32.
    heads         The effect of rounding on trained heads in `merge_for_good`, where `update` is the whole tensor.
    """

    rounded: tuple[Rounding, ...]
    untied: tuple[str, ...] = ()
    dequantized: tuple[str, ...] = ()
    added_bytes: int = 0
    heads: tuple[Rounding, ...] = ()

    @property
    def rounding(self) -> float:
        """The ratio ||rounding|| / ||update|| over all merged tensors."""
        update = math.hypot(*(r.update for r in self.rounded))
        return math.hypot(*(r.rounding for r in self.rounded)) / update if update else 0.0

    @property
    def lost(self) -> float:
        """The fraction of merged values that should have changed but did not."""
        return sum(r.lost for r in self.rounded) / max(sum(r.numbers for r in self.rounded), 1)

    def to_json(self) -> dict[str, Any]:
        """Return the totals and the values of each tensor as JSON-compatible values."""
        fields = asdict(self)
        tensors, heads = fields.pop("rounded"), fields.pop("heads")
        return {"rounding": self.rounding, "lost": self.lost, **fields, "tensors": tensors, "heads": heads}

    def __str__(self) -> str:
        n, dtypes = len(self.rounded), " and ".join(sorted({r.dtype for r in self.rounded}))
        lines = [f"{n} tensor{'s' * (n != 1)} merged in {dtypes}" if n else "nothing was merged into a weight"]
        if self.rounding:
            worst = max(self.rounded, key=lambda r: r.relative)
            lines[0] += (
                f": rounding is {self.rounding:.1%} of the update (most in {worst.module}: {worst.relative:.1%}), and "
                f"{self.lost:.1%} of the numbers did not change at all; merge in fp32 to keep their updates"
            )
        elif n:
            lines[0] += ", so only the sum of weight and update is rounded"
        if self.untied:
            lines.append(f"untied: {', '.join(self.untied)}, so that only one of the tied layers changes")
        if self.dequantized:
            lines.append(f"dequantized: {len(self.dequantized)} layers ({self.dequantized[0]}, ...)")
        if self.untied or self.dequantized:
            lines.append(f"the weights grow by {self.added_bytes:,} bytes")
        return "\n".join(lines)


def merge(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Merge the update into the weights, so that the model runs as fast as its base.

    The original of each merged layer is kept for `unmerge`, so merged layers take twice the memory. A trained head
    stays beside the frozen head, which takes no extra time. Layers that are already merged are left unchanged.

    fp32   Convert the model to fp32 first, so that rounding loses no updates. `unmerge` leaves the model in fp32.
    Raises: BadValue if there is no adapter, if the adapter is disabled or its strength is not 1, if no weight can hold
    the update (prompts, bottlenecks), if a layer is offloaded, has its own `forward` function or can't be untied, or if
    the result would not be finite. After an error, nothing is merged.
    """
    return _merge(model, fp32, keep=True)


def merge_for_good(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Merge the update, including the head, and leave a plain transformers model without quantized layers.

    This cannot be undone. For options and errors, see `merge`.
    """
    report, model = _merge(model, fp32, keep=False), attach.inside(model)
    heads, tied = list[Rounding](), False
    for path, part in attach.adapter_layers(model):
        tied |= part.tied
        if type(part) is attach.TrainedCopy:  # the copy becomes the head, in the base's dtype
            dtype = next(part.base_layer.parameters()).dtype
            trained = part.trained.named_parameters()
            heads += [rounding_of(f"{path}.{name}", torch.zeros_like(p, dtype=dtype), p) for name, p in trained]
            part.base_layer = part.trained.to(dtype).requires_grad_(False)
    before = _bytes(model)  # each head counts once, as after the merge
    quantized = [path for path, layer in model.named_modules() if hasattr(layer, "dequantized")]
    for path in quantized:
        attach.put(model, path, _dequantized(model.get_submodule(path), _dtype(model)))
    seen = set[int]()
    for module in model.modules() if tied and hasattr(model, "config") else ():
        for name, p in module._parameters.items():
            # When untied, each layer needs its own copy. Four layers of BART share a weight; two of BERT share a bias.
            if p is not None and id(p) in seen:
                setattr(module, name, nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad))
            seen.add(id(p))
    added = report.added_bytes + _bytes(model) - before
    attach.remove_adapters(model)
    return replace(report, dequantized=(*report.dequantized, *quantized), added_bytes=added, heads=tuple(heads))


def unmerge(model: nn.Module) -> None:
    """Restore the original layer of every merged adapter. Raises: BadValue if the adapter is missing or disabled."""
    _refuse_disabled(model := attach.inside(model))
    for _, part in attach.adapter_layers(model):
        part.merged = False
        if part.original:
            if part.tied:
                _set_tied(model, True)
            _swap(part)
            part.original, part.tied = (), False


def detach(model: nn.Module) -> None:
    """Remove the adapter and its head, so that the model is as it was before attaching, except that it is frozen.

    Raises: BadValue if there is no adapter, if it is disabled, or if the base itself was trained.
    """
    _refuse_trained_base(model)
    unmerge(model)
    attach.remove_adapters(model)


@contextmanager
def disabled(model: nn.Module, *, keep_head: bool = False) -> Iterator[None]:
    """Disable the adapter in a `with` block. The trained head is disabled too, unless `keep_head` is True.

    Raises: BadValue if the base itself was trained, or if the model has a PEFT adapter.
    """
    _refuse_trained_base(model)
    attach.refuse_peft(attach.inside(model))
    parts = [part for _, part in attach.adapter_layers(model) if part.enabled and not (keep_head and part.head)]

    def switch(enabled: bool) -> None:
        for part in parts:
            part.enabled = enabled
            if part.original:
                _swap(part)

    switch(False)
    try:
        yield
    finally:
        switch(True)


@contextmanager
def at_strength(model: nn.Module, strength: float) -> Iterator[None]:
    """In the `with` block, multiply the update by `strength`: y = W x + strength * scaling * B A x. Heads stay enabled.

    Raises: BadValue if the strength is not a finite number, or if the strength is neither 0 nor 1 and the adapter is
    missing, merged or not plain LoRA. At strength 0, see also `disabled`.
    """
    if not (is_number(strength := plain(strength)) and math.isfinite(strength)):
        raise BadValue(f"strength must be a finite number, not {strength!r}: 0 turns the adapter off, 1 leaves it on")
    parts: list[Any] = [part for _, part in attach.adapter_layers(attach.inside(model)) if not part.head]
    if strength in (0, 1):
        with disabled(model, keep_head=True) if strength == 0 else nullcontext():
            yield
        return
    name = attach.report_of(model).method.name
    if not parts or not all(type(part) in (LoRALinear, LoRAEmbedding) and not part.merged for part in parts):
        raise BadValue(f"a strength of {strength:g} needs a plain, unmerged LoRA: use 0 (off) or 1 (on) for {name}")
    before = [(part, part.scaling, part.strength) for part in parts]
    try:
        for part, scaling, outer in before:
            part.scaling, part.strength = scaling * strength, outer * strength
        yield
    finally:
        for part, scaling, outer in before:
            part.scaling, part.strength = scaling, outer


def _refuse_disabled(model: nn.Module) -> None:
    attach.report_of(model)
    if not all(part.enabled for _, part in attach.adapter_layers(model)):
        raise BadValue("the adapter is disabled: leave the `with disabled(model)` block first")


def _refuse_trained_base(model: nn.Module) -> None:
    report: Any = getattr(attach.inside(model), "lora_lab_report", None)
    if report and report.method.trains_base:
        raise BadValue(f"{report.method.name} trained the base's own weights, which cannot be undone; reload the base")


@torch.no_grad()
def _merge(model: nn.Module, fp32: bool, *, keep: bool) -> MergeReport:
    """Compute each merged tensor twice, to check it and then to store it, so that only one is in memory at a time."""
    _refuse_disabled(model := attach.inside(model))
    if keep and any(part.strength != 1 for _, part in attach.adapter_layers(model)):
        raise BadValue("merging would keep this strength: leave the at_strength block first, or call merge_for_good")
    method = attach.report_of(model).method.name
    by_layer: dict[str, list[AdapterLayer]] = {}  # the adapters of each layer, innermost first
    for path, part in attach.adapter_layers(model):
        if part.unmergeable:
            raise BadValue(f"{method} cannot be merged: it {part.unmergeable}; keep its adapter file")
        if not (part.head or part.merged):
            by_layer.setdefault(attach.plain_path(path), []).insert(0, part)
    dtype, rounded, untied = torch.float32 if fp32 else _dtype(model), list[Rounding](), list[str]()
    uses = Counter(id(m._parameters["weight"]) for m in model.modules() if m._parameters.get("weight") is not None)
    for path, parts in by_layer.items():
        if any(t.is_meta for t in parts[0].base_layer.state_dict().values()):
            raise BadValue(f"cannot merge: the weight of {path} is offloaded; load the whole base into memory first")
        if "forward" in vars(parts[0].base_layer) and not hasattr(parts[0].base_layer, "_hf_hook"):
            why = "has a forward function of its own, which keeps the old weight"
            raise BadValue(f"cannot merge: {path} {why}; remove the function")
        layer, merged = _merged(parts, dtype)
        if layer is parts[0].base_layer and "weight" in merged and uses[id(layer.weight)] > 1:
            untied.append(path)
        for name, new in merged.items():
            frozen = getattr(layer, name).float() if fp32 else getattr(layer, name)
            if not new.to(frozen.dtype).isfinite().all():
                why = f"{frozen.dtype} cannot hold it" if new.isfinite().all() else "the adapter holds NaN or infinity"
                raise BadValue(f"cannot merge: the merged weight would not be finite, because {why}")
            rounded.append(rounding_of(path, frozen, new))
    if untied and getattr(getattr(model, "config", None), "model_type", "") in SCALED_IF_TIED:
        raise BadValue(f"cannot merge: this model's logits change if {untied[0]} is untied; keep the adapter file")
    size, dequantized = _bytes(model), list[str]()
    if fp32:
        model.float()
    try:
        for path, parts in by_layer.items():
            inner, frozen = parts[0], parts[0].base_layer
            layer, merged = _merged(parts, dtype)
            if layer is not frozen:
                dequantized.append(path)
            copied = copy.copy(layer)
            # accelerate gives a layer a `forward` that is bound to the layer, so bind the copy's `forward` to the copy.
            own: Any = {name: value for name, value in vars(layer).items() if name in ("forward", "_old_forward")}
            vars(copied).update(copy.deepcopy(own, {id(layer): copied}), _parameters=dict(layer._parameters))
            for name, new in merged.items():
                kept = new.to(getattr(layer, name).dtype, copy=True)
                copied._parameters[name] = nn.Parameter(kept, requires_grad=False)
            inner.base_layer = copied
            inner.original, inner.tied = (frozen,) if keep else (), path in untied
            for part in parts:
                part.merged = True
    except BaseException:  # for example, if memory runs out
        if keep:
            unmerge(model)
        raise
    if untied:
        _set_tied(model, False)
    return MergeReport(tuple(rounded), tuple(untied), tuple(dequantized), _bytes(model) - size)


def _merged(parts: list[AdapterLayer], dtype: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the frozen layer inside these adapters, dequantized, and its fp32 tensors with the updates added."""
    layer = parts[0].base_layer
    if hasattr(layer, "dequantized"):
        layer = _dequantized(layer, dtype)
    frozen_bias: Any = getattr(layer, "bias", None)
    old = weight, bias = out_by_in(layer).float(), None if frozen_bias is None else frozen_bias.float()
    with torch.autocast(weight.device.type, enabled=False):
        for part in parts:
            weight, bias = part.merged_weights(weight, bias)
    new = {} if weight is old[0] else {"weight": weight.t().contiguous() if is_conv1d(layer) else weight}
    return layer, new if bias is old[1] or bias is None else {**new, "bias": bias}


def _swap(part: AdapterLayer) -> None:
    """Swap the merged copy with the original layer, after moving the original to the model's device, dtype and mode."""
    current, other = part.base_layer, part.original[0]
    quantized = hasattr(current, "dequantized") or hasattr(other, "dequantized")
    like = next(iter(current.state_dict().values()))
    other.train(current.training).to(like.device if quantized else like)  # type: ignore[arg-type]
    part.base_layer, part.original = other, (current,)


def _set_tied(model: nn.Module, tied: bool) -> None:
    """Record in the config whether weights are tied, because transformers would otherwise tie untied layers."""
    config: Any = getattr(model, "config", None)
    for c in (config, config.get_text_config()) if config is not None else ():
        c.tie_word_embeddings = tied


@torch.no_grad()
def _dequantized(layer: Any, dtype: torch.dtype) -> nn.Module:
    """Convert a quantized layer to an equivalent `nn.Linear`, or to a `Conv1D` if the original was a `Conv1D`."""
    from transformers.pytorch_utils import Conv1D

    weight, bias = layer.dequantized(dtype), layer.bias  # (out, in)
    outputs, inputs = weight.shape
    with torch.device("meta"):
        linear = Conv1D(outputs, inputs) if layer.conv1d else nn.Linear(inputs, outputs, bias=bias is not None)
    linear.weight = nn.Parameter(weight.t().contiguous() if layer.conv1d else weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype, copy=True), requires_grad=False)
    return linear.train(layer.training)


def _dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of the base's unquantized weights, or fp32 if the base has only quantized weights."""
    frozen = (p.dtype for p in model.parameters() if p.is_floating_point() and not p.requires_grad)
    return next(frozen, torch.float32)


def _bytes(model: nn.Module) -> int:
    """Return the size of a model's weights and adapters in bytes. Shared weights are counted once."""
    return sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in model.state_dict().values()}.values())

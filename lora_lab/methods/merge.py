"""Merging: what a method trained becomes part of the weights, and is taken out again.

    merge           W' = W + scaling * B A in a copy of the layer, which stands in for the original; runs as fast as the
                    base; bf16 rounds the sum, and the report says how much
    unmerge         the original layers are back, to the bit
    merge_for_good  written into W itself, without a copy; what is left is a plain transformers model

    exact   W + scaling * B A            in fp32
    kept    exact, rounded to W's dtype
    rounding / update = ||exact - kept|| / ||exact - W||        0.1: a tenth of the merged update is noise
    lost    numbers that should have moved and did not: the update was less than half a step of the dtype

bf16 has 8 bits: after 1 comes 1.0078, so of an update of 0.003 nothing is left.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import AdapterLayer, is_conv1d, out_by_in
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, adapters, plain_path, put, report_of, take_out
from lora_lab.methods.base import Report
from lora_lab.methods.heads import TrainedCopy
from lora_lab.methods.lora_layers import LoRAEmbedding

SHORT = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


@dataclass(frozen=True)
class Rounding:
    """What became of one tensor. `update` and `rounding` are norms, `numbers` and `lost` count."""

    module: str
    dtype: str
    numbers: int
    update: float
    rounding: float
    lost: int

    @property
    def relative(self) -> float:
        """||rounding|| / ||update||; 0 where nothing was to change."""
        return self.rounding / self.update if self.update else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"relative": self.relative}


def rounding_of(module: str, frozen: Tensor, new: Tensor) -> Rounding:
    """What writing `new`, in fp32, into `frozen` of its own dtype and the same shape will cost."""
    old, kept = frozen.detach().float(), new.detach().to(frozen.dtype).float()
    update = new.detach() - old
    lost = int(((update != 0) & (kept == old)).sum())
    dtype = SHORT.get(str(frozen.dtype), str(frozen.dtype))
    return Rounding(module, dtype, old.numel(), float(update.norm()), float((new.detach() - kept).norm()), lost)


@dataclass(frozen=True)
class MergeReport:
    """What merging did to a model.

    rounded       each tensor that was merged, in the model's order
    untied        layers whose weight another layer shared, and which have their own now
    dequantised   layers that were quantized and are plain now
    added_bytes   what these two, and fp32 where it was asked for, add to the model's weights
    heads         each tensor of a head that took the frozen one's place, when merging was for good; `update` is the
                  whole of it
    """

    rounded: tuple[Rounding, ...]
    untied: tuple[str, ...] = ()
    dequantised: tuple[str, ...] = ()
    added_bytes: int = 0
    heads: tuple[Rounding, ...] = ()

    @property
    def rounding(self) -> float:
        """||rounding|| / ||update|| over the whole model but its heads; 0 in fp32, where the sum itself is made."""
        update = math.hypot(*(r.update for r in self.rounded))
        return math.hypot(*(r.rounding for r in self.rounded)) / update if update else 0.0

    @property
    def lost(self) -> float:
        """The share of all merged numbers that should have moved and did not."""
        return sum(r.lost for r in self.rounded) / max(sum(r.numbers for r in self.rounded), 1)

    @property
    def worst(self) -> Rounding | None:
        """Where rounding took the largest part of the update."""
        return max(self.rounded, key=lambda r: r.relative, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values: the totals, and each tensor."""
        totals = {"rounding": self.rounding, "lost": self.lost, "added_bytes": self.added_bytes}
        tensors = {"tensors": [r.to_json() for r in self.rounded], "heads": [r.to_json() for r in self.heads]}
        return totals | {"untied": list(self.untied), "dequantised": list(self.dequantised)} | tensors

    def __str__(self) -> str:
        worst, said = self.worst, []
        tensors = f"{len(self.rounded)} tensor{'s' * (len(self.rounded) != 1)}"
        dtypes = " and ".join(sorted({r.dtype for r in self.rounded}))
        if worst is None:
            said.append("nothing was merged into a weight")
        elif not self.rounding:
            said.append(f"{tensors} merged in {dtypes}, which rounds nothing beyond the sum itself")
        else:
            said.append(
                f"{tensors} merged in {dtypes}: rounding is {self.rounding:.1%} of the update (most in "
                f"{worst.module}: {worst.relative:.1%}), and {self.lost:.1%} of the numbers did not move at all; "
                "merge in fp32 to keep them"
            )
        grown = f"the weights grow by {self.added_bytes:,} bytes"
        if self.untied:
            said.append(f"untied: {', '.join(self.untied)}, so that only one of two layers moves; {grown}")
        if self.dequantised:
            said.append(
                f"dequantized: {len(self.dequantised)} layers ({self.dequantised[0]}, ...) are no longer quantized, "
                f"but keep their rounding; {grown}"
            )
        return "\n".join(said)


def merge(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Fold what was trained into the weights, so that the model runs as fast as its base.

    Each merged layer is a copy of the frozen one, which is kept for `unmerge`; so the merged weights are in memory
    twice. A head that trains as a whole stays beside the frozen one, where it costs nothing. What was merged before is
    left alone.

    fp32    turn the whole model to fp32 first, so that nothing is rounded; unmerged, it stays fp32
    Raises: BadValue when there is no adapter, when no weight could hold it (prompts, bottlenecks), and when the result
    would not be finite; nothing is merged then.
    """
    return _merged(model, fp32, for_good=False)


def merge_for_good(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Fold in what was trained, the head too, and leave a plain transformers model, nothing of it quantized.

    It cannot be unmerged. Options and what it raises: as `merge`.
    """
    report = _merged(model, fp32, for_good=True)
    before, heads = _bytes(model), list[Rounding]()
    for path, part in adapter_layers(model):
        if type(part) is TrainedCopy:  # the copy becomes the head itself, in the base's dtype
            dtype = next(part.base_layer.parameters()).dtype
            trained = part.trained.named_parameters()
            heads += [rounding_of(f"{path}.{name}", torch.zeros_like(p, dtype=dtype), p) for name, p in trained]
            part.base_layer = part.trained.to(dtype).requires_grad_(False)
    stood_in = [part for _, part in adapter_layers(model) if part.original]
    coded = [path for path, layer in model.named_modules() if _is_coded(layer)]
    for path in coded:
        put(model, path, _plain(model.get_submodule(path), _dtype(model)))
    if any(part.tied for part in stood_in):
        _untie_the_others(model)
    added = report.added_bytes + _bytes(model) - before
    take_out(model)
    if coded or any(_is_coded(part.original[0]) for part in stood_in):
        _restore_conv1d(model)
    return replace(report, dequantised=(*report.dequantised, *coded), added_bytes=added, heads=tuple(heads))


def unmerge(model: nn.Module) -> None:
    """Put the original layers of every merged adapter back; does nothing where none is merged.

    Raises: BadValue when there is no adapter.
    """
    report_of(model)
    for _, part in adapter_layers(model):
        part.merged = False
        if part.original:
            if part.tied:
                _say_tied(model, True)
            _swap(part)
            part.original, part.tied = (), False


def detach(model: nn.Module) -> None:
    """Give the model back as it was before attaching: adapters out, the original head in. It stays frozen.

    Raises: BadValue when there is no adapter, and where the base itself trained.
    """
    _refuse_trained_base(model)
    unmerge(model)
    take_out(model)


@contextmanager
def disabled(model: nn.Module, *, keep_head: bool = False) -> Iterator[None]:
    """Inside the block the model answers as it did before attaching; with keep_head only the head stays trained.

    Raises: BadValue where the base itself trained.
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
    """Inside the block y = W x + strength * scaling * B A x: 0 is the base, 1 as trained. A trained head stays.

    Raises: BadValue for a strength other than 0 and 1 of what is no plain LoRA, or merged.
    """
    parts: list[Any] = [part for _, part in adapters(model) if not part.head]
    plain = [p for p in parts if type(p) in (LoRALinear, LoRAEmbedding) and not p.merged]
    if len(plain) < len(parts) and strength not in (0, 1):
        name = report_of(model).method.name
        raise BadValue(f"a strength of {strength:g} takes plain LoRA, unmerged; this {name} is on (1) or off (0)")
    if strength == 0:
        with disabled(model, keep_head=True):
            yield
        return
    before = [(part, part.scaling) for part in plain]
    try:
        for part, scaling in before:
            part.scaling = strength * scaling
        yield
    finally:
        for part, scaling in before:
            part.scaling = scaling


def _refuse_trained_base(model: nn.Module) -> None:
    report = getattr(model, "lora_lab_report", None)
    if isinstance(report, Report) and report.method.trains_base:
        raise BadValue(f"{report.method.name} trained the base's own weights, which nothing can undo; load it again")


@torch.no_grad()
def _merged(model: nn.Module, fp32: bool, *, for_good: bool) -> MergeReport:
    """Compute and check all that is to be written first; then compute it again and write it, layer by layer."""
    name, around = report_of(model).method.name, dict[str, list[AdapterLayer]]()
    for path, part in adapters(model):
        if part.unmergeable:
            raise BadValue(f"{name} cannot be merged: it {part.unmergeable}; keep its adapter file")
        if isinstance(part, AdapterLayer) and not part.head and not part.merged:
            around.setdefault(plain_path(path), []).insert(0, part)  # the innermost first
    before, dtypes = _bytes(model), {name: t.dtype for name, t in _tensors(model)}
    dtype, rounded = torch.float32 if fp32 else _dtype(model), list[Rounding]()
    try:
        if fp32:
            model.float()
        for path, parts in around.items():
            plain, new = _with_updates(parts, dtype)
            rounded += [_checked(path, getattr(plain, name), tensor) for name, tensor in new.items()]
    except BaseException:
        for name, tensor in _tensors(model):
            tensor.data = tensor.data.to(dtypes[name])
        raise
    shared = Counter(id(m._parameters.get("weight")) for m in model.modules())
    untied, dequantised = list[str](), list[str]()
    for path, parts in around.items():
        holder, layer = parts[0], parts[0].base_layer
        plain, new = _with_updates(parts, dtype)
        holder.tied = "weight" in new and shared[id(layer._parameters.get("weight"))] > 1 and not _is_coded(layer)
        untied += [path] * holder.tied
        dequantised += [path] * (plain is not layer)
        if plain is layer and not (for_good and not holder.tied):  # else in place
            plain = copy.copy(layer)
            copies = {name: nn.Parameter(getattr(layer, name).clone(), requires_grad=False) for name in new}
            plain._parameters = {**layer._parameters, **copies}
        if plain is not layer:
            holder.original, holder.base_layer = (layer,), plain
        for name, tensor in new.items():
            plain._parameters[name].copy_(tensor)  # type: ignore[union-attr]
        for part in parts:
            part.merged = True
    if untied:
        _say_tied(model, False)
    return MergeReport(tuple(rounded), tuple(untied), tuple(dequantised), _bytes(model) - before)


def _with_updates(parts: list[AdapterLayer], dtype: torch.dtype) -> tuple[nn.Module, dict[str, Tensor]]:
    """The plain layer inside these adapters, dequantized where it is coded, and what its tensors become, in fp32."""
    layer = parts[0].base_layer
    plain = _plain(layer, dtype) if _is_coded(layer) else layer
    old_weight = weight = out_by_in(plain).float()
    own: Any = getattr(plain, "bias", None)
    old_bias = bias = None if own is None else own.float()
    for part in parts:
        weight, bias = part.merged_weights(weight, bias)
    new = {} if weight is old_weight and plain is layer else {"weight": weight.t() if is_conv1d(plain) else weight}
    return plain, new if bias is old_bias or bias is None else {**new, "bias": bias}


def _checked(module: str, frozen: Tensor, new: Tensor) -> Rounding:
    """Raises BadValue where `new` cannot be written into `frozen`."""
    if not frozen.is_floating_point():
        raise BadValue(f"cannot merge into a weight of {frozen.dtype}: load the base in fp32 or bf16 first")
    if not new.to(frozen.dtype).isfinite().all():
        why = "the adapter holds NaN or infinity" if not new.isfinite().all() else f"{frozen.dtype} cannot hold it"
        raise BadValue(f"cannot merge: the merged weight would not be finite, for {why}")
    return rounding_of(module, frozen, new)


def _swap(part: AdapterLayer) -> None:
    """Exchange the copy of a frozen layer and the original, which follows to where the model went in the meantime."""
    now, other = part.base_layer, part.original[0]
    device = next(chain(now.parameters(), now.buffers())).device
    other.to(device) if _is_coded(now) or _is_coded(other) else other.to(now.weight)  # type: ignore[arg-type]
    part.base_layer, part.original = other, (now,)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _say_tied(model: nn.Module, tied: bool) -> None:
    """What a checkpoint's config says: transformers would tie the two layers again when it is loaded."""
    config: Any = getattr(model, "config", None)
    for known in (config, config.get_text_config()) if config is not None else ():
        known.tie_word_embeddings = tied


def _untie_the_others(model: nn.Module) -> None:
    """Where a checkpoint's config says untied, each layer brings its own weight: BART has four that shared one.

    So it is with a bias: BERT's language model ties that of its decoder to one that stands beside it.
    """
    config, seen = getattr(model, "config", None), set[int]()
    for module in model.modules() if getattr(config, "tie_word_embeddings", None) is False else ():
        for name, own in module._parameters.items():
            if own is not None and id(own) in seen:
                setattr(module, name, nn.Parameter(own.detach().clone(), requires_grad=own.requires_grad))
            seen.add(id(own))


def _is_coded(layer: nn.Module) -> bool:
    return hasattr(layer, "dequantized")


@torch.no_grad()
def _plain(layer: Any, dtype: torch.dtype) -> nn.Module:
    """The linear layer that computes what a quantized one does."""
    weight, bias = layer.dequantized(dtype), layer.bias  # (out, in)
    outputs, inputs = weight.shape
    plain = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    plain.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        plain.bias = nn.Parameter(bias.detach().to(dtype, copy=True), requires_grad=False)
    return plain.train(layer.training)


def _restore_conv1d(model: nn.Module) -> None:
    """Where the model's class has a Conv1D, put one again for a plain linear layer: a checkpoint has (in, out)."""
    if not hasattr(model, "save_pretrained"):  # no model of transformers': no such checkpoint, and no config to ask
        return
    with torch.device("meta"):
        skeleton = type(model)(model.config)
    for path, wanted in skeleton.named_modules():
        if is_conv1d(wanted) and isinstance(layer := model.get_submodule(path), nn.Linear):
            wanted.weight = nn.Parameter(layer.weight.t().contiguous(), requires_grad=False)
            wanted.bias = layer.bias
            put(model, path, wanted.train(layer.training))


def _dtype(model: nn.Module) -> torch.dtype:
    """Of the base's own numbers that are not quantized."""
    frozen = (p.dtype for p in model.parameters() if p.is_floating_point() and not p.requires_grad)
    return next(frozen, torch.float32)  # of layers without a bias nothing is left that is not quantized


def _bytes(model: nn.Module) -> int:
    """Of the model's weights, what a method put in among them; a weight that two layers share counts once."""
    different = {t.data_ptr(): t for t in model.state_dict().values()}
    return sum(t.numel() * t.element_size() for t in different.values())

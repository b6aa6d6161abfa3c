"""Merging: what a method trained is written into the frozen weights, and taken out of them again.

    merge           W <- W + scaling * B A     the base's own speed; bf16 rounds the sum, the report says how much
    unmerge         W <- W - scaling * B A     the adapter beside its base again, up to a rounding
    merge_for_good  as merge, and what is left is a plain transformers model

Two kinds of weight are not written into but stood in for while the adapter is merged: one that two layers share (tied
embeddings: both would move), which becomes two; and a quantised one, whose layer has a method `dequantized(dtype)`: a
plain linear layer takes what that gives.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.layers import LoRAEmbedding, LoRALayer, LoRALinear, TrainedCopy, is_conv1d
from lora_lab.methods.attach import put, report_of, switched, take_out
from lora_lab.methods.base import Report
from lora_lab.methods.merge_report import MergeReport, Rounding, rounding_of
from lora_lab.methods.packed import PackedHead
from lora_lab.switched import AdaptedLayer, Mergeable, Switched

Parts = list[tuple[str, Mergeable]]


def merge(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Fold what was trained into the frozen weights, so that the model runs at the base's own speed.

    A head that trains as a whole stays beside the frozen one, where it costs nothing. Returns what rounding took of
    each update that was merged now; one that was merged before is left alone.

    fp32    turn the whole model to fp32 first, so that nothing is rounded; unmerged, it stays fp32
    Raises: BadValue when there is no adapter, when no weight could hold it (prompts, bottlenecks), when the result
    would not be finite, and when unmerging could not undo it; nothing is merged then.
    """
    parts = _to_merge(model)
    for name, part in parts:
        if not part.undoable:
            raise BadValue(f"{name} has a factor of 0, which unmerging cannot divide out: use merge_for_good(model)")
    return _merged(model, parts, fp32)


def merge_for_good(model: nn.Module, *, fp32: bool = False) -> MergeReport:
    """Fold in what was trained, the head too, and leave a plain transformers model, nothing of it quantised.

    It cannot be unmerged. Options and what it raises: as `merge`.
    """
    report = _merged(model, _to_merge(model), fp32)
    stood_in = [part for _, part in switched(model) if isinstance(part, Mergeable) and part.stood_in_for]
    heads = [rounding for path, part in switched(model) for rounding in _settled(path, part)]
    quantised = [(path, layer) for path, layer in model.named_modules() if _is_quantised(layer)]
    before = _bytes(model)
    for path, layer in quantised:
        put(model, path, _plain(layer, _dtype(model)))
    if stood_in:
        _untie_the_others(model)
    grown = _bytes(model) - before
    take_out(model)
    if quantised or stood_in:
        _restore_conv1d(model)
    return replace(
        report,
        heads=tuple(heads),
        dequantised=(*report.dequantised, *(path for path, _ in quantised)),
        added_bytes=report.added_bytes + grown,
    )


def unmerge(model: nn.Module) -> None:
    """Take every merged adapter out of its weight again; does nothing where none is merged.

    Raises: BadValue when there is no adapter.
    """
    report_of(model)
    _unmerge(model, [part for _, part in switched(model)])


@contextmanager
def disabled(model: nn.Module, *, keep_head: bool = False) -> Iterator[None]:
    """Inside the block the model answers as it did before attaching; with keep_head only the head stays trained.

    A merged adapter is unmerged for the block and merged again after it, each time up to a rounding of the weight.
    Raises: BadValue where the base itself trained.
    """
    _refuse_within(model)
    parts = [(name, m) for name, m in switched(model) if not (keep_head and isinstance(m, TrainedCopy | PackedHead))]
    merged = [(name, part) for name, part in parts if isinstance(part, Mergeable) and part.merged]
    before = [(part, part.enabled) for _, part in parts]
    try:
        _unmerge(model, [part for _, part in merged])
        for part, _ in before:
            part.enabled = False
        yield
    finally:
        for part, enabled in before:
            part.enabled = enabled
        _merged(model, merged, fp32=False)


@contextmanager
def at_strength(model: nn.Module, strength: float) -> Iterator[None]:
    """Inside the block y = W x + strength * scaling * B A x: 0 is the base, 1 as trained. A trained head stays.

    Raises: BadValue for a strength other than 0 and 1 of what is no plain LoRA, or merged.
    """
    parts = [part for _, part in switched(model) if not isinstance(part, TrainedCopy | PackedHead)]
    plain = [p for p in parts if isinstance(p, LoRALayer) and type(p) in (LoRALinear, LoRAEmbedding) and not p.merged]
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


def detach(model: nn.Module) -> None:
    """Give the model back as it was before attaching: adapters out, the original head in. It stays frozen.

    Raises: BadValue when there is no adapter, and where the base itself trained.
    """
    _refuse_within(model)
    unmerge(model)
    take_out(model)


def _refuse_within(model: nn.Module) -> None:
    report = getattr(model, "lora_lab_report", None)
    if isinstance(report, Report) and report.method.within:
        raise BadValue(
            f"{report.method.name} trains the base's own weights, so there is nothing to take out; load the base anew"
        )


def _to_merge(model: nn.Module) -> Parts:
    """What is to be merged. Raises: BadValue for what cannot be."""
    method = report_of(model).method
    parts: Parts = []
    for name, part in switched(model):
        if isinstance(part, Mergeable):
            parts.append((name, part))
        elif type(part) is not TrainedCopy:
            raise BadValue(f"{method.name} cannot be merged: it {part.unmergeable}; keep its adapter file")
    return [(name, part) for name, part in parts if not part.merged]


def _merged(model: nn.Module, parts: Parts, fp32: bool) -> MergeReport:
    before, rounded, dtypes = _bytes(model), list[Rounding](), {name: t.dtype for name, t in _numbers(model)}
    untied, dequantised = _stand_in(model, parts)
    done: list[Switched] = [part for _, part in parts]
    try:
        if fp32:
            model.float()
        for name, part in parts:
            part.merge(watch=partial(_note, rounded, name))
    except BaseException:
        _unmerge(model, done)
        for name, tensor in _numbers(model):
            tensor.data = tensor.data.to(dtypes[name])
        raise
    return MergeReport(tuple(rounded), tuple(untied), tuple(dequantised), _bytes(model) - before)


def _note(rounded: list[Rounding], name: str, frozen: Tensor, new: Tensor) -> None:
    rounded.append(rounding_of(_path(name), frozen, new))


def _numbers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(model.named_parameters(), model.named_buffers())


def _stand_in(model: nn.Module, parts: Parts) -> tuple[list[str], list[str]]:
    """Put plain layers of their own in the place of frozen ones that are tied or quantised; returns their names."""
    owners = Counter(id(p) for m in model.modules() for name, p in m._parameters.items() if name == "weight")
    untied, dequantised = [], []
    for name, part in parts:
        base = part.base_layer
        if isinstance(base, AdaptedLayer) or not part.moves_weight:
            continue  # of several parts around one layer the inner one sees to it
        if _is_quantised(base):
            part.stand_in(_plain(base, _dtype(model)))
            dequantised.append(_path(name))
        elif owners[id(base.weight)] > 1:
            part.stand_in(copy.deepcopy(base))
            untied.append(_path(name))
    if untied:
        _say_tied(model, False)
    return untied, dequantised


def _unmerge(model: nn.Module, parts: Sequence[Switched]) -> None:
    for part in parts:  # of several around one layer the outer one first: the inner one puts the frozen layer back
        if isinstance(part, Mergeable):
            part.unmerge()
    for part in parts:
        stand_in = part.base_layer if isinstance(part, Mergeable) else None
        if stand_in is not None and isinstance(part, Mergeable) and (frozen := part.put_back()):
            _follow(frozen, stand_in)
            if not _is_quantised(frozen):
                _say_tied(model, True)


def _follow(frozen: nn.Module, stand_in: nn.Module) -> None:
    """To where the model went in the meantime: another device, or fp32."""
    weight: Tensor = stand_in.weight  # type: ignore[assignment]
    frozen.to(weight.device) if _is_quantised(frozen) else frozen.to(weight)


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


def _settled(path: str, part: Switched) -> list[Rounding]:
    """Let the trained copy of a head be the head itself, in the base's dtype."""
    if not isinstance(part, TrainedCopy):
        return []
    dtype = next(part.base_layer.parameters()).dtype
    trained = part.trained.named_parameters()
    rounded = [rounding_of(f"{path}.{name}", torch.zeros_like(p, dtype=dtype), p) for name, p in trained]
    part.base_layer = part.trained.to(dtype).requires_grad_(False)
    return rounded


def _is_quantised(layer: nn.Module) -> bool:
    return hasattr(layer, "dequantized")


@torch.no_grad()
def _plain(layer: Any, dtype: torch.dtype) -> nn.Module:
    """The linear layer that computes what a quantised one does."""
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
    """Of the base's own numbers that are not quantised."""
    frozen = (p.dtype for p in model.parameters() if p.is_floating_point() and not p.requires_grad)
    return next(frozen, torch.float32)  # of layers without a bias nothing is left that is not quantised


def _bytes(model: nn.Module) -> int:
    """Of the model's weights, what a method put in among them; a weight that two layers share counts once."""
    different = {t.data_ptr(): t for t in model.state_dict().values()}
    return sum(t.numel() * t.element_size() for t in different.values())


def _path(name: str) -> str:
    return name.replace(".base_layer", "")

"""Count the parameters that a method trains: in total, per kind of module, and in bytes on disk.

    full:  d_in d_out            LoRA:  r (d_in + d_out)            break-even:  r* = d_in d_out / (d_in + d_out)

LoRA and full fine-tuning are counted from the model's description. For a zoo model, this doesn't need torch. Any other
method is attached to the model on the meta device, and the parameters that require gradients are counted. Source: Hu et
al. 2021, section 5.1, which counts 2 d r parameters for a square layer.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_lab.accounting.models import LAYER, Architecture, Module, architecture_of, config_of, longest, meta_model
from lora_lab.errors import BadValue, LabWarning
from lora_lab.lazy import nn
from lora_lab.methods.base import Method, Placement, check_method
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.methods.targets import ALL_LINEAR

NAMED = (str, Path, Mapping, Architecture)  # ways to name or describe a model without loading it
FP32 = 4  # bytes per number in an adapter file, whatever the base's precision


@dataclass(frozen=True)
class Row:
    """All `count` modules of one kind, or one slice of each fused module.

    `full` is the modules' number of parameters, or 0 for modules that a method adds, such as a soft prompt.
    `trained` is the number that the method trains. `break_even_rank` is rounded to two decimals (None if not a matrix).
    """

    name: str
    role: str
    in_features: int
    out_features: int
    count: int
    full: int
    trained: int
    break_even_rank: float | None = None


@dataclass(frozen=True)
class ParameterCount:
    """The number of parameters that a method trains.

    `total` counts the model without the method. `trainable` excludes the task's `head`, which every method trains.
    """

    model: str
    method: str
    total: int
    trainable: int
    head: int
    adapter_bytes: int
    modules: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # caveats to show with the count

    @property
    def fraction(self) -> float:
        """The ratio trainable / total."""
        return self.trainable / self.total

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return asdict(self) | {"fraction": self.fraction}


def _notes(a: Architecture, method: Method, rows: Sequence[Row]) -> Iterator[str]:
    experts = sum(row.trained for row in rows if ".experts.*." in row.name)
    stored = "transformers 5 stores a layer's experts in one tensor, which this lab does not adapt"
    peft = "PEFT 0.21 adapts this tensor in some model types, such as Mixtral, and counts more parameters"
    if experts and method.name in ("lora", "ia3"):
        counted = f"{experts:,} of these parameters are in experts, counted as one adapter per expert"
        yield f"{counted}: {stored}; {peft}"
    elif a.experts and ALL_LINEAR in method.settings().get("targets", ()):
        yield f"all-linear leaves out experts and routers: {stored}; {peft}"
    if method.name == "full":
        yield "the size of the adapter file leaves out its header, which takes about 100 bytes per tensor"


def break_even_rank(in_features: int, out_features: int) -> float:
    """Return d_in d_out / (d_in + d_out), the rank above which LoRA has more parameters than the weight."""
    return in_features * out_features / (in_features + out_features)


def params(model: Any, method: Method, num_labels: int | None = None) -> ParameterCount:
    """Count the parameters that `method` trains in `model`, in total and per kind of module.

    model   A zoo name, a folder, a config.json or its fields, a cached hub id, or a transformers model.
    With `num_labels`, count the model for sequence classification.
    Raises: NotFound for an unknown model or a target that matches nothing; BadValue for an invalid value.
    """
    check_method(method)
    named = isinstance(model, NAMED)
    model = model if named else without_adapter(model, num_labels)
    a = architecture_of(model, num_labels)
    head = sum(m.parameters for m in a.modules if m.in_task_head)
    trained, added = Counter[str](), list[Row]()
    if isinstance(method, LoRA):
        placements = method.place(list(a.sites))
        for placement in placements:
            trained[placement.site.name] += placement.parameters * a.sites[placement.site].count
        settings = json.dumps({"method": method.settings(), "base_fingerprint": "0" * 16})
        size = safetensors_bytes(_file_shapes(method, placements, a), {"format": "pt", "lora_lab": settings})
    elif isinstance(method, FullFineTuning):
        trains = (m for m in a.modules if not (m.in_task_head or m.role == "constant"))
        trained.update({m.name: m.parameters * m.count for m in trains})
        size = FP32 * a.total
    elif method.name in ("head", "probe") and not head:
        advice = "use lora, or pass num_labels (--num-labels)"
        raise BadValue(f"{method.name} trains a task's head, but {a.name} has none: {advice}")
    else:
        longest(config_of(model), method)  # raises if the prompt is too long
        attached, paths = meta_model(model, num_labels) if named else model, {m.name for m in a.modules}
        from lora_lab.methods.attach import parameters_of_parts, plain_path
        from lora_lab.methods.io import file_of

        with warnings.catch_warnings(action="ignore", category=LabWarning):  # about layers that stay frozen
            report = method.attach(attached)
        for path, name, p in parameters_of_parts(attached):  # without the heads
            module, inputs = plain_path(path), p.shape[0] if p.dim() > 1 else 1
            if p.requires_grad and module in paths:
                trained[module] += p.numel()
            elif p.requires_grad:
                added.append(Row(f"{path}.{name}", method.name, inputs, p.numel() // inputs, 1, 0, p.numel()))
        tensors, metadata, _ = file_of(attached, report)
        head, size = report.head_parameters, safetensors_bytes({k: t.shape for k, t in tensors.items()}, metadata)
    rows = (*table(a, trained), *added)
    trainable, notes = sum(row.trained for row in rows), tuple(_notes(a, method, rows))
    return ParameterCount(a.name, method.name, a.total, trainable, head, size, rows, notes)


def without_adapter(model: Any, num_labels: int | None = None) -> nn.Module:
    """Copy a loaded model to the meta device, without its adapter."""
    from lora_lab.methods.attach import heads_of, inside, refuse_peft, remove_adapters, shapes_of

    refuse_peft(model := inside(model))
    quantized = not all(p.is_floating_point() for p in model.parameters())  # bitsandbytes packs two weights into a byte
    if quantized and num_labels is None and heads_of(model):
        num_labels = model.config.num_labels
    if quantized or num_labels is not None:
        return meta_model(config_of(model), num_labels)
    copy = shapes_of(model)
    remove_adapters(copy)
    return copy


def table(a: Architecture, trained: Mapping[str, int]) -> tuple[Row, ...]:
    """Return one row per kind of module, in the model's order. Equal modules of different layers share a row.

    trained   The number of trainable parameters by path. A slice of a fused layer has a path like "h.0.attn.c_attn[q]".
    A fused layer is split into its slices if any of them is trained. The `full` column adds up to the model's total.
    """
    kinds: dict[Module, list[str]] = {}
    for module in a.modules:
        kinds.setdefault(replace(module, name=LAYER.sub("*", module.name, count=1)), []).append(module.name)
    rows: list[Row] = []
    for m, paths in kinds.items():
        count, trainable = m.count * len(paths), sum(trained.get(path, 0) for path in paths)
        full, roles = m.parameters * count, m.role.split("+") if "+" in m.role else []
        slices = {role: [f"{path}[{role}]" for path in paths] for role in roles}
        if any(name in trained for names in slices.values() for name in names):
            for role, names in slices.items():
                width, numbers = a.widths[role], sum(trained.get(name, 0) for name in names)
                share, rank = full * width // m.out_features, round(break_even_rank(m.in_features, width), 2)
                rows.append(Row(f"{m.name}[{role}]", role, m.in_features, width, count, share, numbers, rank))
            full = 0  # counted with the slices
        if full or trainable:
            even = None if m.kind == "other" else round(break_even_rank(m.in_features, m.out_features), 2)
            rows.append(Row(m.name, m.role, m.in_features, m.out_features, count, full, trainable, even))
    return tuple(rows)


def _file_shapes(method: LoRA, placements: Sequence[Placement], a: Architecture) -> dict[str, tuple[int, ...]]:
    """Return {key: shape} of a LoRA file's tensors. Slices of a fused layer share A and B; see `lora_layers.py`."""
    shapes: dict[str, tuple[int, ...]] = {}
    ranks: Counter[str] = Counter()
    for placement in placements:
        site, m = placement.site, a.sites[placement.site]
        ranks[site.module] += method.file_rank(placement.rank)
        suffixes = ("embedding_A", "embedding_B") if site.kind == "embedding" else ("A.weight", "B.weight")
        for expert in range(m.count):
            key = f"base_model.model.{site.module.replace('*', str(expert))}.lora_"
            shapes[key + suffixes[0]] = (ranks[site.module], m.in_features)
            shapes[key + suffixes[1]] = (m.out_features, ranks[site.module])
            if method.dora:
                shapes[f"{key}magnitude_vector"] = (m.out_features,)
    for m in (m for m in a.modules if m.in_task_head):
        shapes[f"base_model.model.{m.name}.weight"] = (m.out_features, m.in_features)
        if m.parameters > m.in_features * m.out_features:
            shapes[f"base_model.model.{m.name}.bias"] = (m.out_features,)
    return shapes


def safetensors_bytes(tensors: Mapping[str, Sequence[int]], metadata: Mapping[str, str]) -> int:
    """Return the size of a safetensors file with these fp32 tensors: 8 bytes, the header, and the data.

    The header is JSON with each tensor's dtype, shape and offsets, sorted by name and padded to a multiple of 8 bytes.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, shape in sorted(tensors.items()):
        stop = start + math.prod(shape) * FP32
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + length + -length % 8 + start

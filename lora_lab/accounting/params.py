"""Count what a method trains on a model: in total, per kind of module, and in bytes on disk.

    full:  d_in d_out            LoRA:  r (d_in + d_out)            break-even:  r* = d_in d_out / (d_in + d_out)

LoRA is placed on the sites of the description, and full fine-tuning trains every module: neither needs torch for a
model of the zoo. Any other method is attached to the model on the meta device, and what requires a gradient is added
up. Source: Hu et al. 2021, section 5.1, for square layers: 2 d r.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.accounting.models import LAYER, Architecture, Module, architecture_of, config_of, meta_model
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods.base import Method, Placement
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import nn

FP32 = 4  # bytes per number in an adapter file, whatever the precision of the base


@dataclass(frozen=True)
class Row:
    """One kind of module, or one slice of a fused one: all `count` of them together.

    `full` is their parameters in the model, 0 for what a method adds, such as a soft prompt; `trained` what the method
    trains there. `break_even_rank` has two decimals and is None for what is not a matrix.
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
    """How much of a model a method trains, in parameters.

    `total` is the model before the method; `trainable` leaves out the task's `head`, which trains with every method.
    """

    model: str
    method: str
    total: int
    trainable: int
    head: int
    adapter_bytes: int
    modules: tuple[Row, ...]

    @property
    def fraction(self) -> float:
        """trainable / total."""
        return self.trainable / self.total

    @property
    def notes(self) -> tuple[str, ...]:
        """Caveats, in sentences."""
        experts = sum(row.trained for row in self.modules if ".experts." in row.name)
        if not experts or self.method not in ("lora", "ia3"):
            return ()
        return (
            f"{experts:,} of these are in experts, counted as one adapter each; transformers 5 keeps a layer's "
            "experts in one tensor, which this lab does not adapt; PEFT 0.21 adapts it as a whole, and counts more",
        )

    def to_json(self) -> dict[str, Any]:
        """The count as plain values."""
        return asdict(self) | {"fraction": self.fraction, "notes": list(self.notes)}


def break_even_rank(in_features: int, out_features: int) -> float:
    """d_in d_out / (d_in + d_out): above this rank LoRA is larger than the weight. Raises: BadValue below 1."""
    if in_features < 1 or out_features < 1:
        raise BadValue(f"a weight has at least one input and one output, not {in_features} x {out_features}")
    return in_features * out_features / (in_features + out_features)


def params(model: Any, method: Method, num_labels: int | None = None) -> ParameterCount:
    """Count the parameters that `method` trains on `model`, in total and per kind of module.

    model   a name of the zoo, a folder, a config.json or its fields, a cached hub id, or a transformers model
    With `num_labels` the model is the one for sequence classification.
    Raises: NotFound for an unknown model or a target that matches nothing; BadValue for an impossible value.
    """
    named = isinstance(model, str | Path | Mapping | Architecture)
    model = model if named else plain(model, num_labels)
    a = architecture_of(model, num_labels)
    head = sum(m.parameters for m in a.modules if m.in_task_head)
    trained, added = Counter[str](), list[Row]()
    if isinstance(method, LoRA):
        placements = method.place(list(a.sites))
        for placement in placements:
            trained[placement.site.name] += placement.parameters * a.sites[placement.site].count
        own = json.dumps({"method": method.settings(), "base_fingerprint": "0" * 16})
        size = safetensors_bytes(_file(method, placements, a), {"format": "pt", "lora_lab": own})
    elif isinstance(method, FullFineTuning):
        trained.update({m.name: m.parameters * m.count for m in a.modules if not m.in_task_head})
        size = FP32 * (trained.total() + head)
    elif isinstance(model, Architecture):
        raise BadValue(f"{method.name} is counted by attaching it: give the model's name instead of its Architecture")
    elif method.name in ("head", "probe") and not head:
        raise BadValue(f"{method.name} trains a task's head, and {a.name} has none: give num_labels (--num-labels)")
    else:
        made, known = meta_model(model, num_labels) if named else model, {m.name for m in a.modules}
        from lora_lab.methods.attach import parameters_of_parts, plain_path
        from lora_lab.methods.io import file_of

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LabWarning)  # about layers that stay frozen: nothing is trained here
            report = method.attach(made)
        for path, name, p in parameters_of_parts(made):  # without the heads
            at, inputs = plain_path(path), p.shape[0] if p.dim() > 1 else 1
            if p.requires_grad and at in known:
                trained[at] += p.numel()
            elif p.requires_grad:
                added.append(Row(f"{path}.{name}", method.name, inputs, p.numel() // inputs, 1, 0, p.numel()))
        tensors, metadata, _ = file_of(made, report)
        head, size = report.head_parameters, safetensors_bytes({k: t.shape for k, t in tensors.items()}, metadata)
    rows = (*table(a, trained), *added)
    return ParameterCount(a.name, method.name, a.total, sum(row.trained for row in rows), head, size, rows)


def plain(model: Any, num_labels: int | None = None) -> nn.Module:
    """A copy of a loaded model on the meta device, without its adapter."""
    from lora_lab.methods.attach import heads_of, remove_adapters, shapes_of

    coded = not all(weight.is_floating_point() for weight in model.parameters())  # bitsandbytes packs two in a byte
    if coded and num_labels is None and heads_of(model):
        num_labels = model.config.num_labels
    if coded or num_labels is not None:
        return meta_model(config_of(model), num_labels)
    plain = shapes_of(model)
    remove_adapters(plain)
    return plain


def table(a: Architecture, trained: Mapping[str, int]) -> tuple[Row, ...]:
    """One row per kind of module, in the model's order: equal modules of different layers share a row.

    trained   parameters by path, "h.0.attn.c_attn[q]" for a slice of a fused layer
    A fused layer is split into its slices if one of them trains. The column `full` sums to the model's total.
    """
    kinds: dict[Module, list[str]] = {}
    for module in a.modules:
        kinds.setdefault(replace(module, name=LAYER.sub("*", module.name, count=1)), []).append(module.name)
    rows: list[Row] = []
    for m, paths in kinds.items():
        count, whole = m.count * len(paths), sum(trained.get(path, 0) for path in paths)
        full, roles = m.parameters * count, m.role.split("+") if "+" in m.role else []
        slices = {role: [f"{path}[{role}]" for path in paths] for role in roles}
        if any(name in trained for names in slices.values() for name in names):
            for role, names in slices.items():
                width, numbers = a.widths[role], sum(trained.get(name, 0) for name in names)
                share, rank = full * width // m.out_features, round(break_even_rank(m.in_features, width), 2)
                rows.append(Row(f"{m.name}[{role}]", role, m.in_features, width, count, share, numbers, rank))
            full = 0  # counted with the slices
        if full or whole:
            even = None if m.kind == "other" else round(break_even_rank(m.in_features, m.out_features), 2)
            rows.append(Row(m.name, m.role, m.in_features, m.out_features, count, full, whole, even))
    return tuple(rows)


def _file(method: LoRA, placements: Sequence[Placement], a: Architecture) -> dict[str, tuple[int, ...]]:
    """Key and shape of each tensor in LoRA's file; slices of a fused layer share A and B there (`lora_layers.py`)."""
    shapes: dict[str, tuple[int, ...]] = {}
    ranks: Counter[str] = Counter()
    for placement in placements:
        site, m = placement.site, a.sites[placement.site]
        ranks[site.module] += method.file_rank(placement.rank)
        ends = ("embedding_A", "embedding_B") if site.kind == "embedding" else ("A.weight", "B.weight")
        for expert in range(m.count):
            key = f"base_model.model.{site.module.replace('*', str(expert))}.lora_"
            shapes[key + ends[0]] = (ranks[site.module], m.in_features)
            shapes[key + ends[1]] = (m.out_features, ranks[site.module])
            if method.dora:
                shapes[f"{key}magnitude_vector"] = (m.out_features,)
    for m in (m for m in a.modules if m.in_task_head):
        shapes[f"base_model.model.{m.name}.weight"] = (m.out_features, m.in_features)
        if m.parameters > m.weight:
            shapes[f"base_model.model.{m.name}.bias"] = (m.out_features,)
    return shapes


def safetensors_bytes(tensors: Mapping[str, Sequence[int]], metadata: Mapping[str, str]) -> int:
    """Bytes of a safetensors file with these fp32 tensors: 8 for the header's length, the header, the data.

    The header is JSON, padded to a multiple of 8, with each tensor's type, shape and offsets, sorted by name.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, shape in sorted(tensors.items()):
        stop = start + math.prod(shape) * FP32
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + length + -length % 8 + start

"""What trains, counted: the whole, each kind of module, the break-even rank, and the bytes that keeping it takes.

    full:  d_in d_out            LoRA:  r (d_in + d_out)            break-even:  r* = d_in d_out / (d_in + d_out)

A square layer of d x d has r* = d / 2: below that rank an adapter has fewer numbers than the weight it changes.
Source: Hu et al. 2021, section 5.1, which has it for square layers: 2 d r.

LoRA is placed on the described sites, exactly as on the real ones, and full fine-tuning trains every row; neither takes
torch for a model of the zoo. Every other method is attached to the model on the meta device, and what trains there is
added up.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.accounting.models import Architecture, Module, Slot, architecture_of, config_of, meta_model
from lora_lab.errors import BadValue, LabWarning
from lora_lab.methods.base import Method, Placement
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA

if TYPE_CHECKING:
    from torch import nn

FP32 = 4  # bytes of a number in an adapter's file, whatever the base's precision
# As in `methods/layouts/base.py` and `methods/adapters.py`, which import torch; a test holds them together.
_PREFIX = "base_model.model."
_FINGERPRINT = "0" * 16


@dataclass(frozen=True)
class Row:
    """One kind of module, or one slice of a fused one, all `count` of them together.

    `full` numbers stand in the model, `trained` numbers train because of the method: LoRA's beside the weight, a bias
    within it. What a method adds of its own (a soft prompt) has full 0. Units: numbers.
    """

    name: str
    role: str
    in_features: int
    out_features: int
    count: int
    full: int
    trained: int = 0
    matrix: bool = True  # one number for each input and output, so that a rank makes sense

    @property
    def break_even_rank(self) -> float | None:
        """The rank at which A and B hold as many numbers as the weight; None where there is no matrix."""
        return break_even_rank(self.in_features, self.out_features) if self.matrix else None

    def to_json(self) -> dict[str, Any]:
        """The row as plain values, the break-even rank to two decimals."""
        values = {key: value for key, value in asdict(self).items() if key != "matrix"}
        rank = self.break_even_rank
        return values | {"break_even_rank": None if rank is None else round(rank, 2)}


@dataclass(frozen=True)
class ParameterCount:
    """How much of a model a method trains. Units: numbers; adapter_bytes in bytes.

    `total` is the model as it came; `trainable` leaves out the task's `head`, which trains whatever the method.
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
        """What the numbers do not say by themselves, in sentences."""
        experts = sum(row.trained for row in self.modules if ".experts." in row.name)
        if not experts or self.method not in ("lora", "ia3"):
            return ()
        return (
            f"{experts:,} of these stand in experts, counted as one adapter each; transformers 5 keeps a layer's "
            "experts in one tensor, to which this lab attaches none; PEFT 0.21 adapts it as a whole, and counts more",
        )

    def to_json(self) -> dict[str, Any]:
        """The count as plain values."""
        values = {key: getattr(self, key) for key in ("model", "method", "total", "trainable", "head")}
        rows = [row.to_json() for row in self.modules]
        return values | {
            "fraction": self.fraction,
            "adapter_bytes": self.adapter_bytes,
            "modules": rows,
            "notes": list(self.notes),
        }


def break_even_rank(in_features: int, out_features: int) -> float:
    """d_in d_out / (d_in + d_out): above this rank LoRA holds more numbers than the weight itself.

    Raises: BadValue for a size below 1.
    """
    if in_features < 1 or out_features < 1:
        raise BadValue(f"a weight has at least one input and one output, not {in_features} x {out_features}")
    return in_features * out_features / (in_features + out_features)


def table(architecture: Architecture, trained: Mapping[tuple[Module, str], int]) -> tuple[Row, ...]:
    """Every kind of module in the model's order, with what trains there.

    trained   numbers by module and, where it is a slice of a fused one that trains, the slice's role, else ""
    A fused layer stands as its slices where a slice trains. The column `full` sums to the model's total.
    """
    rows: list[Row] = []
    for module in architecture.modules:
        size, matrix = module.parameters * module.count, module.kind not in ("norm", "other")
        inputs, outputs, whole = module.in_features, module.out_features, trained.get((module, ""), 0)
        row = Row(module.name, module.role, inputs, outputs, module.count, size, whole, matrix)
        roles = [role for role in module.role.split("+") if any((module, r) in trained for r in module.role.split("+"))]
        for role in roles:
            width, numbers = architecture.widths.get(role, 0), trained.get((module, role), 0)
            full = width * (inputs + module.bias) * module.count
            rows.append(Row(f"{module.name}[{role}]", role, inputs, width, module.count, full, numbers))
        if not roles and (row.full or whole):
            rows.append(row)
        elif roles and whole:
            rows.append(replace(row, full=0))  # what it stands on was counted with the slices
    return tuple(rows)


def safetensors_bytes(tensors: Mapping[str, Sequence[int]], metadata: Mapping[str, str]) -> int:
    """Bytes of a safetensors file with these fp32 tensors: 8 for the header's length, the header, the numbers.

    The header is JSON, filled with spaces to a multiple of 8; it names each tensor's type, shape and place, in the
    order of their names. Source: the format's own description.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, shape in sorted(tensors.items()):
        stop = start + math.prod(shape) * FP32
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + length + -length % 8 + start


@dataclass(frozen=True)
class Storage:
    """Bytes that n tasks take: one base and an adapter each, or a whole model each."""

    n: int
    adapters: int
    models: int

    @property
    def times(self) -> float:
        """How many times as much the models take."""
        return self.models / self.adapters


def storage(n: int, model_bytes: int, adapter_bytes: int) -> Storage:
    """What keeping n fine-tuned variants takes, with adapters on one base and as n models of their own.

    Units: bytes. Raises: BadValue for a negative number of tasks or no bytes at all.
    """
    if n < 1 or model_bytes < 1 or adapter_bytes < 0:
        raise BadValue(f"storage needs at least one task and a model of at least one byte, not {n} and {model_bytes}")
    return Storage(n, model_bytes + n * adapter_bytes, n * model_bytes)


def params(model: Any, method: Method, num_labels: int | None = None) -> ParameterCount:
    """The parameters that `method` trains on `model`, in all and for each kind of module.

    model   a name of the zoo, a folder, a config.json or its fields, a cached hub id, or a transformers model
    With `num_labels` it is the model for sequence classification.
    Raises: NotFound for an unknown model or a target that matches nothing; BadValue for an impossible value.
    """
    if not isinstance(model, str | Path | Mapping | Architecture):
        model = plain(model, num_labels)
    architecture = architecture_of(model, num_labels)
    head, added = architecture.head_parameters, list[Row]()
    trained: Counter[tuple[Module, str]] = Counter()
    if isinstance(method, LoRA):
        for slot, placement in _placed(method, architecture):
            trained[slot.module, slot.site.role if slot.site.rows else ""] += placement.parameters * slot.times
        own = {"method": method.settings(), "base_fingerprint": _FINGERPRINT}
        size = safetensors_bytes(dict(_tensors(method, architecture)), {"format": "pt", "lora_lab": json.dumps(own)})
    elif isinstance(method, FullFineTuning):
        trained.update({(m, ""): m.parameters * m.count for m in architecture.modules if not m.in_task_head})
        size = FP32 * (trained.total() + head)
    elif isinstance(model, Architecture):
        raise BadValue(f"{method.name} is counted by attaching it: give the model's name in place of its Architecture")
    elif method.name in ("head", "probe") and not head:
        raise BadValue(f"{method.name} trains the head of a task, and {architecture.name} has none: give num_labels")
    else:
        made = meta_model(model, num_labels) if isinstance(model, str | Path | Mapping) else model
        head, size = _attached(made, method, architecture, trained, added)
    return ParameterCount(
        model=architecture.name,
        method=method.name,
        total=architecture.total,
        trainable=trained.total() + sum(row.trained for row in added),
        head=head,
        adapter_bytes=size,
        modules=(*table(architecture, trained), *added),
    )


def _placed(method: LoRA, architecture: Architecture) -> list[tuple[Slot, Placement]]:
    """Where the adapters go; an expert has one of its own. Raises: as LoRA's `place`."""
    slots = {slot.site: slot for slot in architecture.slots}
    return [(slots[placement.site], placement) for placement in method.place(list(slots))]


def plain(model: Any, num_labels: int | None = None) -> nn.Module:
    """A loaded model on the meta device, without the adapter that it may carry."""
    from lora_lab.methods.attach import shapes_of, take_out
    from lora_lab.methods.heads import heads_of

    coded = not all(weight.is_floating_point() for weight in model.parameters())  # bitsandbytes packs two in a byte
    if coded and num_labels is None and heads_of(model):
        num_labels = model.config.num_labels
    if coded or num_labels is not None:
        return meta_model(config_of(model), num_labels)
    plain = shapes_of(model)
    take_out(plain)
    return plain


def _attached(
    model: nn.Module, method: Method, architecture: Architecture, trained: Counter[tuple[Module, str]], added: list[Row]
) -> tuple[int, int]:
    """Attach the method and note what trains where; numbers in the heads, and bytes of the file."""
    from lora_lab.layers import TrainedCopy
    from lora_lab.methods.adapters import file_of
    from lora_lab.methods.attach import own_parameters, switched

    modules = dict(architecture.paths())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabWarning)  # of what would stay frozen: nothing is trained here
        report = method.attach(model)
    for path, part in switched(model):
        own = {name: p for name, p in own_parameters(part) if p.requires_grad and not isinstance(part, TrainedCopy)}
        if module := modules.get(path.replace(".base_layer", "")):
            trained[module, ""] += sum(p.numel() for p in own.values())
            continue
        for name, p in own.items():
            inputs = p.shape[0] if p.dim() > 1 else 1
            row = Row(f"{path}.{name}", method.name, inputs, p.numel() // inputs, 1, 0, p.numel(), matrix=False)
            added.append(row)
    tensors, metadata = file_of(model, report)
    return report.head_parameters, safetensors_bytes({key: t.shape for key, t in tensors.items()}, metadata)


def _tensors(method: LoRA, architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Key and shape of every tensor in LoRA's file; a fused layer costs more there than trains: `layouts/lora.py`."""
    for path, group in groupby(_placed(method, architecture), key=lambda pair: pair[0].site.module):
        together = list(group)
        slot, rank = together[0][0], sum(method.file_rank(placement.rank) for _, placement in together)
        ends = ("embedding_A", "embedding_B") if slot.site.kind == "embedding" else ("A.weight", "B.weight")
        for expert in range(slot.times):
            key = f"{_PREFIX}{path.replace('*', str(expert))}.lora_"
            yield f"{key}{ends[0]}", (rank, slot.module.in_features)
            yield f"{key}{ends[1]}", (slot.module.out_features, rank)
            if method.dora:
                yield f"{key}magnitude_vector", (slot.module.out_features,)
    for module in architecture.modules:
        if module.in_task_head:
            yield f"{_PREFIX}{module.name}.weight", (module.out_features, module.in_features)
            if module.bias:
                yield f"{_PREFIX}{module.name}.bias", (module.out_features,)

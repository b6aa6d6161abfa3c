"""What trains, counted: the whole, each kind of module, the break-even rank, and the bytes that keeping it takes.

    full:  d_in d_out            LoRA:  r (d_in + d_out)            break-even:  r* = d_in d_out / (d_in + d_out)

A square layer of d x d has r* = d / 2: below that rank an adapter has fewer numbers than the weight it changes.
Source: Hu et al. 2021, section 4.2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lora_lab.accounting.models import Architecture, Module
from lora_lab.errors import BadValue

FP32 = 4  # bytes of a number in an adapter's file, whatever the base's precision


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

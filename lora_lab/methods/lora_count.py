"""LoRA counted from an architecture alone: rows of the table, and its file to the byte. No torch.

Experts count as one adapter each where gate, up or down are targets, although transformers 5 keeps the experts of a
layer in one tensor, to which this lab attaches none; all-linear means what it attaches to and leaves them out. PEFT
0.21 adapts that tensor, on Mixtral's all-linear the router too: gate and up share an adapter of twice the rank there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from lora_lab.accounting.architectures import Architecture, Slot
from lora_lab.accounting.parameters import Row, row_of, safetensors_bytes, slice_rows
from lora_lab.accounting.plan import Adapter, LayerPlan, Plan
from lora_lab.methods.base import Placement

if TYPE_CHECKING:
    from lora_lab.methods.lora import LoRA

# As in `methods/adapters.py`, which imports torch; a test holds the two together.
_PREFIX = "base_model.model."
_FINGERPRINT = "0" * 16


def rows(parts: Iterable[tuple[Slot, int]], architecture: Architecture) -> tuple[Row, ...]:
    """A row for each kind of module, or slice of one, from the numbers that train at each slot."""
    numbers: Counter[Row] = Counter()
    for slot, trained in parts:
        numbers[_row(slot, architecture)] += trained * slot.times
    return tuple(replace(row, trained=n) for row, n in numbers.items())


def _row(slot: Slot, architecture: Architecture) -> Row:
    """The row that a site belongs to: its module's, or its slice's."""
    if slot.site.rows is None:
        return row_of(slot.module)
    slices = slice_rows(slot.module, architecture.widths)
    return next(row for row in slices if row.role == slot.site.role)


def file_bytes(method: LoRA, architecture: Architecture) -> int:
    """Bytes of the adapter_model.safetensors that `save_adapter` writes, header and trained head included.

    A fused layer costs more there than trains: PEFT knows no slices (see `methods/adapters.py`).
    On a base in fp16, which has no fingerprint to write, 16 bytes less.
    """
    own = json.dumps({"method": method.settings(), "base_fingerprint": _FINGERPRINT})
    return safetensors_bytes(dict(_tensors(method, architecture)), {"format": "pt", "lora_lab": own})


def plan(method: LoRA, architecture: Architecture) -> Plan:
    """The adapters of each layer by the module they stand beside; those outside the layers only as a number."""
    found = placed(method, architecture)
    return replace(
        layered([(slot, _adapter(p)) for slot, p in found], architecture),
        parameters=sum(p.parameters * slot.times for slot, p in found),
        kept=sum(_kept(method, p) * slot.times for slot, p in found),
        dropout=method.dropout,
        unknown=_unknown(method),
    )


def _adapter(placement: Placement) -> Adapter:
    site = placement.site
    sliced, frozen = site.rows is not None, placement.frozen > 0
    return Adapter(placement.rank, site.in_features, site.out_features, sliced, frozen)


def _kept(method: LoRA, placement: Placement) -> int:
    """Numbers beside the base that do not train: a frozen A, and what PiSSA's A and B started as."""
    start = placement.site.lora_parameters(method.file_rank(placement.rank) - placement.rank)
    return placement.frozen + start


def _unknown(method: LoRA) -> str:
    """Why the closed form does not state a variant's memory; that of the others is as LoRA's, or known."""
    named = [name for name in method.variants if name in ("dora", "pissa")]
    return f"the memory of lora with {' and '.join(named)} is not modelled; trace follows it step by step" * bool(named)


def layered(parts: Iterable[tuple[Slot, Adapter]], architecture: Architecture) -> Plan:
    """The plan of what stands beside some modules: inside the layers by module, elsewhere only as a number."""
    layers: list[dict[str, list[Adapter]]] = [{} for _ in range(architecture.layers)]
    numbers = outside = 0
    for slot, part in parts:
        numbers += part.numbers * slot.times
        if not slot.module.numbers or slot.module.expert:
            outside += part.numbers * slot.times
            continue
        layers[layer_of(slot)].setdefault(slot.module.key, []).append(part)
    made = (tuple((role, tuple(each)) for role, each in layer.items()) for layer in layers)
    same: dict[LayerPlan, LayerPlan] = {}
    return Plan(numbers, layers=tuple(same.setdefault(layer, layer) for layer in made), outside=outside)


def layer_of(slot: Slot) -> int:
    """The number that stands where the module's name has its *."""
    return int(slot.site.module[slot.module.name.index("*") :].partition(".")[0])


def placed(method: LoRA, architecture: Architecture) -> list[tuple[Slot, Placement]]:
    """Where the adapters go. Raises: as `LoRA.place`."""
    slots = {slot.site: slot for slot in architecture.slots}
    return [(slots[placement.site], placement) for placement in method.place(list(slots))]


def _tensors(method: LoRA, architecture: Architecture) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Key and shape of every tensor in the file."""
    for path, group in groupby(placed(method, architecture), key=lambda pair: pair[0].site.module):
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

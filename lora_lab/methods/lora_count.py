"""What LoRA's memory depends on, layer by layer, from an architecture alone. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from lora_lab.accounting.models import Architecture, Slot
from lora_lab.accounting.plan import Adapter, LayerPlan, Plan
from lora_lab.methods.base import Placement

if TYPE_CHECKING:
    from lora_lab.methods.lora import LoRA


def plan(method: LoRA, architecture: Architecture) -> Plan:
    """The adapters of each layer by the module they stand beside; those outside the layers only as a number."""
    found = method.placed(architecture)
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

"""What adapters beside modules cost, layer by layer, from an architecture alone. No torch."""

from __future__ import annotations

from collections.abc import Iterable

from lora_lab.accounting.models import Architecture, Slot
from lora_lab.accounting.plan import Adapter, LayerPlan, Plan


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

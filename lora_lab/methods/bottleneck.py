"""Adapters in the older sense: small bottlenecks between the layers, with a nonlinearity in the middle.

    x -> x + W_up f(W_down x)        2 d r + r + d numbers each, biases among them

    placement   adapters a layer    layer norms a layer    in Hu et al.
    houlsby     2                   0                      AdapterH
    lin         1                   1 of its own           AdapterL
    pfeiffer    1                   0                      AdapterP, AdapterDrop

    L_adapters (2 d r + r + d) + 2 L_norms d               section 5.1
Sources: Houlsby et al. 2019, Pfeiffer et al. 2021, Rueckle et al. 2020 (AdapterDrop); Lin et al. 2020 as Hu et al.
describe it (not read here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.accounting.models import Architecture
from lora_lab.accounting.plan import Funnel, Plan
from lora_lab.errors import BadValue
from lora_lab.methods.base import Method, Report, register
from lora_lab.methods.layered import layer_of, layered
from lora_lab.methods.options import layers_within, one_of, whole

if TYPE_CHECKING:
    from torch import nn

PER_LAYER = {"houlsby": (2, 0), "lin": (1, 1), "pfeiffer": (1, 0)}  # adapters, new layer norms


@register
@dataclass(frozen=True)
class Bottleneck(Method):
    """Bottlenecks of `size` numbers.

    layers   how many of the topmost layers have adapters (AdapterDrop leaves the lower ones out); None: all
    Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "bottleneck"
    packs: ClassVar[bool] = True
    retired: ClassVar[Mapping[str, Any]] = {"layernorms": None}

    size: int = 64
    placement: str = "houlsby"
    layers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("size", self.size)
        one_of("placement", self.placement, tuple(PER_LAYER))
        if self.layers is not None:
            whole("layers", self.layers)

    def check_width(self, width: int) -> None:
        """Raises BadValue for a size above the model's width."""
        if self.size > width:
            raise BadValue(f"size {self.size} is no bottleneck in a model of width {width}: at most {width}")

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, put the bottlenecks behind its layers' parts, give a classification head a trained copy.

        Raises: BadValue where no place is found, a setting does not fit, or the model carries an adapter already.
        """
        from lora_lab.methods import attach, trained_bottleneck  # imports torch

        adapters, norms = PER_LAYER[self.placement]
        places = trained_bottleneck.ends_of_parts(model, ("o", "down")[-adapters:])
        wanted = self.layers or len(places)
        if wanted > len(places):
            raise BadValue(f"layers is {wanted}, but this model has {len(places)} layers")
        chosen = [site for number in sorted(places)[-wanted:] for site in places[number]]
        self.check_width(chosen[0].out_features)
        around = partial(trained_bottleneck.TrainedBottleneck, size=self.size, norm=bool(norms))
        return attach.attach_beside(model, self, [(site.module, around) for site in chosen])

    def plan(self, architecture: Architecture) -> Plan:
        """The bottlenecks of each layer, as far as memory depends on them. Raises: as `attach`."""
        (adapters, norms), d = PER_LAYER[self.placement], architecture.hidden
        layers_within("layers", self.layers or 1, architecture)
        self.check_width(d)
        layers = self.layers or architecture.layers
        numbers = layers * (adapters * (2 * d * self.size + self.size + d) + norms * 2 * d)
        after = ("o", "down")[-adapters:]
        places = [s for s in architecture.slots if s.module.key in after and not s.module.expert]
        found = layered(
            [
                (s, Funnel(self.size, s.site.in_features, d, norm=bool(norms)))
                for s in places
                if layer_of(s) >= architecture.layers - layers
            ],
            architecture,
        )
        if found.parameters != numbers:
            what = f"behind the experts of {architecture.name}"
            return Plan(numbers, unknown=f"the memory of bottlenecks {what} is not modelled")
        return found

"""Bottleneck adapters: small networks with one hidden layer, inserted after parts of each transformer layer.

    y -> y + W_up gelu(W_down norm(y))    # has 2 d r + r + d parameters, and 2 d more for the norm of "lin"

    houlsby:   AdapterH follows attention and the feed-forward block (Houlsby et al. 2019, arXiv:1902.00751).
    lin:       AdapterL, with a norm, follows the feed-forward block (Hu et al. 5.1; Lin et al. 2020, not read by us).
    pfeiffer:  AdapterP follows the feed-forward block (Pfeiffer et al. 2021, arXiv:2005.00247).

AdapterDrop (Rueckle et al. 2020, arXiv:2010.11918) omits the adapters of the lower layers. W_up starts at zero, so the
output is initially unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import F, Tensor, nn, torch
from lora_lab.methods.base import adapter_layer, attach, register
from lora_lab.methods.layer_method import LayerMethod
from lora_lab.methods.targets import Site

PLACEMENTS = {"houlsby": ("o", "down"), "lin": ("down",), "pfeiffer": ("down",)}  # roles of the preceding layers


@register
@dataclass(frozen=True)
class Bottleneck(LayerMethod):
    """Add bottlenecks of width `size` to the top `layers` layers of the model, or to all layers if `layers` is None.

    Raises: BadValue for an invalid value.
    """

    name, can_pack = "bottleneck", True
    allowed: ClassVar[Mapping[str, Any]] = {"size": 1, "layers": 1, "placement": tuple(PLACEMENTS)}
    unmergeable = "contains a nonlinearity, which no weight can represent"
    retired: ClassVar[Mapping[str, Any]] = {"layernorms": None}

    size: int = 64
    placement: str = "houlsby"
    layers: int | None = None

    def places(self, model: nn.Module) -> list[tuple[str, Mapping[str, Any]]]:
        roles, layers = PLACEMENTS[self.placement], dict[int, list[Site]]()
        for site in attach.sites_of(model):
            number = re.search(r"\.(\d+)\.", site.module)
            if number and site.role in roles and site.kind == "linear" and site.out_slice is None:
                layers.setdefault(int(number[1]), []).append(site)
        if not layers or any(sorted(s.role for s in sites) != sorted(roles) for sites in layers.values()):
            needed = f"one module with the role {' and one with '.join(roles)}"
            raise BadValue(f"bottleneck does not fit this model: each layer must have {needed}; use lora")
        count = self.layers or len(layers)
        if count > len(layers):
            raise BadValue(f"layers={count} is too high, because this model has {len(layers)} layers")
        chosen = [site for number in sorted(layers)[-count:] for site in layers[number]]
        if self.size > (width := chosen[0].out_features):
            raise BadValue(f"size {self.size} is not a bottleneck in a model of width {width}: use at most {width}")
        return [(site.module, {}) for site in chosen]

    def start(self, layer: nn.Module, **_: Any) -> dict[str, nn.Module]:
        weight = adapter_layer.out_by_in(layer)
        d, factory = len(weight), dict[str, Any](device=weight.device, dtype=torch.float32)
        norm = {"norm": nn.LayerNorm(d, **factory)} if self.placement == "lin" else {}
        down, up = nn.Linear(d, self.size, **factory), nn.Linear(self.size, d, **factory)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        return {**norm, "down": down, "up": up}

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        down, up, dtype = adapter.down, adapter.up, y.dtype
        normed = adapter.norm(y.float()).to(dtype) if self.placement == "lin" else y
        h = F.gelu(F.linear(normed, down.weight.to(dtype), down.bias.to(dtype)))  # (..., size)
        return y + F.linear(h, up.weight.to(dtype), up.bias.to(dtype))

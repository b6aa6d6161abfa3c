"""Adapters in the older sense: small bottlenecks behind parts of each layer, with a nonlinearity in the middle.

    y -> y + W_up gelu(W_down norm(y))        2 d r + r + d numbers, with biases; the norm, 2 d, only in "lin"

    houlsby    behind attention and feed-forward   AdapterH, Houlsby et al. 2019, arXiv:1902.00751
    lin        behind feed-forward, with a norm    AdapterL, Lin et al. 2020 (not read here), as in Hu et al. 5.1
    pfeiffer   behind feed-forward                 AdapterP, Pfeiffer et al. 2021, arXiv:2005.00247

AdapterDrop (Rueckle et al. 2020, arXiv:2010.11918) leaves the lower layers out. W_up starts at zero, so at first
nothing changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import one_of, register, whole
from lora_lab.methods.layer_method import LayerMethod, Lazy
from lora_lab.methods.targets import Site

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = Lazy("torch")

PLACEMENTS = {"houlsby": ("o", "down"), "lin": ("down",), "pfeiffer": ("down",)}  # behind the layers in these roles


@register
@dataclass(frozen=True)
class Bottleneck(LayerMethod):
    """Bottlenecks of `size` numbers in the topmost `layers` of the model, None for all.

    Raises: BadValue for an impossible value.
    """

    name: ClassVar[str] = "bottleneck"
    can_pack: ClassVar[bool] = True
    unmergeable: ClassVar[str] = "has a nonlinearity in its middle, which no weight of the base could compute"
    retired: ClassVar[Mapping[str, Any]] = {"layernorms": None}

    size: int = 64
    placement: str = "houlsby"
    layers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("size", self.size)
        one_of("placement", self.placement, tuple(PLACEMENTS))
        if self.layers is not None:
            whole("layers", self.layers)

    def places(self, model: nn.Module) -> list[tuple[str, Mapping[str, Any]]]:
        from lora_lab.methods.attach import sites_of

        roles, layers = PLACEMENTS[self.placement], dict[int, list[Site]]()
        for site in sites_of(model):
            number = re.search(r"\.(\d+)\.", site.module)
            if number and site.role in roles and site.kind == "linear" and site.out_slice is None:
                layers.setdefault(int(number[1]), []).append(site)
        if not layers or any(sorted(s.role for s in found) != sorted(roles) for found in layers.values()):
            needed = f"one layer in the role {' and one in '.join(roles)} in each layer"
            raise BadValue(f"bottleneck finds no place in this model: it needs {needed}; use lora")
        wanted = self.layers or len(layers)
        if wanted > len(layers):
            raise BadValue(f"layers is {wanted}, but this model has {len(layers)} layers")
        chosen = [site for number in sorted(layers)[-wanted:] for site in layers[number]]
        if self.size > (width := chosen[0].out_features):
            raise BadValue(f"size {self.size} is not a bottleneck in a model of width {width}: at most {width}")
        return [(site.module, {}) for site in chosen]

    def start(self, layer: nn.Module, **_: Any) -> dict[str, nn.Module]:
        from lora_lab.adapter_layer import out_by_in

        nn, d = torch.nn, len(out_by_in(layer))
        where: Any = {"device": out_by_in(layer).device, "dtype": torch.float32}
        norm = {"norm": nn.LayerNorm(d, **where)} if self.placement == "lin" else {}
        down, up = nn.Linear(d, self.size, **where), nn.Linear(self.size, d, **where)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        return {**norm, "down": down, "up": up}

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        linear, gelu = torch.nn.functional.linear, torch.nn.functional.gelu
        down, up, dtype = adapter.down, adapter.up, y.dtype
        normed = adapter.norm(y.float()).to(dtype) if self.placement == "lin" else y
        h = gelu(linear(normed, down.weight.to(dtype), down.bias.to(dtype)))  # (..., size)
        return y + linear(h, up.weight.to(dtype), up.bias.to(dtype))

"""Bottlenecks that train behind the parts of frozen layers. The method is in bottleneck.py.

    y -> y + W_up gelu(W_down norm(y))        norm only where the placement has one

    attention -> o -> [bottleneck] -> + -> norm -> up -> down -> [bottleneck] -> + -> norm        an encoder's layer

W_up starts at zero, so at the start nothing changes. Source: Houlsby et al. 2019; Lin et al. 2020 (not read here).
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.errors import BadValue
from lora_lab.layers import out_by_in
from lora_lab.methods.attach import sites_of
from lora_lab.methods.beside import Beside, Own
from lora_lab.methods.targets import Site


class TrainedBottleneck(Beside):
    """Behind a frozen linear layer of d outputs: W_down (size, d) and W_up (d, size) with biases, in fp32."""

    unmergeable = "has a nonlinearity in its middle, which no weight of the base could compute"

    def __init__(self, base_layer: nn.Module, size: int, *, norm: bool) -> None:
        super().__init__(base_layer)
        weight = out_by_in(base_layer)
        d, where = weight.shape[0], weight.device
        self.norm = nn.LayerNorm(d, device=where, dtype=torch.float32) if norm else None
        self.down = nn.Linear(d, size, device=where, dtype=torch.float32)
        self.up = nn.Linear(size, d, device=where, dtype=torch.float32)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def after(self, y: Tensor, own: Own) -> Tensor:
        x = y if self.norm is None else _normed(y, own["norm.weight"], own["norm.bias"])
        h = F.gelu(_linear(x, own["down.weight"], own["down.bias"]))  # (lanes, tokens, size)
        return y + _linear(h, own["up.weight"], own["up.bias"])


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each lane's own product, in the dtype of x while the weights stay fp32: (K, n, in), (K, out, in), (K, out)."""
    return torch.baddbmm(bias.to(x.dtype).unsqueeze(1), x, weight.to(x.dtype).transpose(1, 2))


def _normed(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each lane's own norm, in fp32."""
    lanes = zip(y.float(), weight, bias, strict=True)
    return torch.stack([F.layer_norm(part, weight.shape[1:], w, b) for part, w, b in lanes]).to(y.dtype)


def ends_of_parts(model: nn.Module, roles: tuple[str, ...]) -> dict[int, list[Site]]:
    """By layer, the linear layers that end its parts: attention (o) and feed-forward (down)."""
    sites = [site for site in sites_of(model) if site.role in roles and site.kind == "linear" and site.rows is None]
    places: dict[int, list[Site]] = {}
    for site in sites:
        if number := re.search(r"\.(\d+)\.", site.module):
            places.setdefault(int(number[1]), []).append(site)
    if not places or any(sorted(s.role for s in found) != sorted(roles) for found in places.values()):
        raise BadValue(
            f"bottleneck finds no place in this model: it needs one layer in the role {' and one in '.join(roles)} "
            "in each layer; use lora"
        )
    return places

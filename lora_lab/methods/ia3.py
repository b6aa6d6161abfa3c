"""IA3: a learned factor for every number of the keys, the values and the middle of the feed-forward part.

    y = W (l * x) + b        l (in), on the input of the layers that `feedforward` names
    y = l * (W x + b)        l (out), on the output of the others; of a slice of a fused layer, on those outputs alone

All factors start at 1, so at first nothing changes. Liu et al. 2022, arXiv:2205.05638.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import register
from lora_lab.methods.layer_method import LayerMethod, Lazy
from lora_lab.methods.options import words
from lora_lab.methods.targets import choose

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    torch = Lazy("torch")


@register
@dataclass(frozen=True)
class IA3(LayerMethod):
    """Factors at the targets, on the input of those that `feedforward` names and on the output of the others.

    Targets are roles, as everywhere. Raises: BadValue for none, or for a feedforward that is no target.
    """

    name: ClassVar[str] = "ia3"
    packs: ClassVar[bool] = True
    unmergeable: ClassVar[str] = ""

    targets: tuple[str, ...] = ("k", "v", "down")
    feedforward: tuple[str, ...] = ("down",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("targets", "feedforward"):
            value = getattr(self, name)
            object.__setattr__(self, name, () if value is None else words(value, such_as="k,v"))
        for target in self.feedforward:
            if target not in self.targets:
                raise BadValue(f"feedforward names '{target}', which is not among the targets {list(self.targets)}")

    def places(self, model: nn.Module) -> list[tuple[str, Mapping[str, Any]]]:
        from lora_lab.methods.attach import sites_of

        sites = sites_of(model)
        on_input = set(choose(self.feedforward, sites)) if self.feedforward else set()
        chosen = choose(self.targets, sites)
        for site in chosen:
            if site.kind != "linear":
                raise BadValue(
                    f"ia3 is for linear layers, and {site.name} is an {site.kind}: leave it out of the targets"
                )
            if site in on_input and site.out_slice is not None:
                said = f"{site.name} shares its input with the rest of the layer"
                raise BadValue(f"{said}, so no factor there is its own: leave {site.role} out of feedforward")
        return [(s.module, {"on_input": s in on_input, "out_slice": s.out_slice}) for s in chosen]

    def start(self, layer: nn.Module, **told: Any) -> dict[str, Tensor]:
        from lora_lab.layers import out_by_in

        weight = out_by_in(layer)
        start, stop = (0, weight.shape[1]) if told["on_input"] else told["out_slice"] or (0, weight.shape[0])
        return {"factor": torch.ones(stop - start, device=weight.device)}

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        return x * adapter.factor.to(x.dtype) if adapter.on_input else x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        return y if adapter.on_input else y * whole(adapter, y.shape[-1]).to(y.dtype)

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if adapter.on_input:
            return weight * adapter.factor, bias
        factor = whole(adapter, len(weight))
        return weight * factor[:, None], None if bias is None else bias * factor


def whole(adapter: Any, outputs: int) -> Tensor:
    """The factors of all outputs of the layer, (outputs,): 1 where none is trained."""
    if adapter.out_slice is None:
        return adapter.factor  # type: ignore[no-any-return]
    start, stop = adapter.out_slice
    return torch.nn.functional.pad(adapter.factor, (start, outputs - stop), value=1.0)

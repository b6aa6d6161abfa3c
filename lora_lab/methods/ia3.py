"""IA3: learned factors that rescale the keys, the values and the hidden activations of the feed-forward block.

    y = W (l * x) + b        l (in), scales the input of layers in `feedforward`
    y = l * (W x + b)        l (out), scales the output of the others, or of a slice of a fused layer

All factors start at 1, so the output is initially unchanged. Liu et al. 2022, arXiv:2205.05638.
Files: base_model.model.<path>.ia3_l, (1, in) or (out, 1); outputs that are not adapted have the factor 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.methods.base import PREFIX, Report, register, words
from lora_lab.methods.layer_method import F, LayerMethod, adapter_layer, attach, peft, torch
from lora_lab.methods.targets import ROLES, choose

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
@dataclass(frozen=True)
class IA3(LayerMethod):
    """Factors that scale the input of targets in `feedforward` and the output of the other targets.

    Raises: BadValue for targets that are not strings, or if `feedforward` is not a subset of `targets`.
    """

    name: ClassVar[str] = "ia3"
    can_pack: ClassVar[bool] = True
    unmergeable: ClassVar[str] = ""
    peft_type: ClassVar[str] = "IA3"
    decisive: ClassVar[tuple[str, ...]] = ("peft_type", "target_modules", "feedforward_modules")

    targets: tuple[str, ...] = ("k", "v", "down")
    feedforward: tuple[str, ...] = ("down",)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "targets", words(self.targets or ()))
        object.__setattr__(self, "feedforward", words(self.feedforward or ()))
        for target in self.feedforward:
            if target not in self.targets:
                raise BadValue(f"feedforward names '{target}', which is not among the targets {list(self.targets)}")

    def places(self, model: nn.Module) -> list[tuple[str, Mapping[str, Any]]]:
        sites = attach.sites_of(model)
        chosen, on_input = choose(self.targets, sites), choose(self.feedforward, sites) if self.feedforward else []
        for s in chosen:
            if s.kind != "linear":
                raise BadValue(f"ia3 is for linear layers, and {s.name} is an {s.kind}: leave it out of the targets")
            if s in on_input and s.out_slice:
                message = f"{s.name} shares its input with the rest of the layer, so it cannot have its own factor"
                raise BadValue(f"{message}: leave {s.role} out of feedforward")
        return [(s.module, {"on_input": s in on_input, "out_slice": s.out_slice}) for s in chosen]

    def start(self, layer: nn.Module, **options: Any) -> dict[str, Tensor]:
        weight = adapter_layer.out_by_in(layer)
        start, stop = options["out_slice"] or (0, weight.shape[1 if options["on_input"] else 0])
        return {"factor": torch.ones(stop - start, device=weight.device)}

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        return x * adapter.factor.to(x.dtype) if adapter.on_input else x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        return y if adapter.on_input else y * _full_factor(adapter, y.shape[-1]).to(y.dtype)

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if adapter.on_input:
            return weight * adapter.factor, bias
        factor = _full_factor(adapter, len(weight))
        return weight * factor[:, None], None if bias is None else bias * factor

    # ---- files

    def to_peft(self, model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, modules = {}, peft.by_module(model, attach.MethodLayer)
        for path, layers in modules.items():
            factor = torch.stack([_full_factor(layer, len(adapter_layer.out_by_in(layer))) for layer in layers]).prod(0)
            tensors[f"{PREFIX}{path}.ia3_l"] = factor[None, :] if layers[0].on_input else factor[:, None]
        on_input = [path for path, layers in modules.items() if layers[0].on_input]
        targets, feedforward = _names(list(modules), on_input, peft.layer_names(model))
        names = {"target_modules": targets, "feedforward_modules": feedforward}
        return tensors, {"peft_type": "IA3", "init_ia3_weights": True, **peft.layer_config(model, modules), **names}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> IA3:
        sites = attach.sites_of(model)
        modules, suffixes = peft.matched(config, sites), peft.required(config, "feedforward_modules") or []
        # PEFT's rule here is looser than for targets: any suffix of the path matches, even without a preceding dot.
        if isinstance(suffixes, str):
            on_input = peft.fitting(suffixes, modules)
        else:
            on_input = [module for module in modules if module.endswith(tuple(suffixes))]
        targets, feedforward = _names(modules, on_input, {site.module for site in sites}, taken=ROLES)
        return cls(targets=tuple(targets), feedforward=tuple(feedforward))

    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        for path, layers in peft.by_module(model, attach.MethodLayer).items():
            factor = tensors[f"{PREFIX}{path}.ia3_l"].flatten()
            for layer in layers:
                layer.factor.data.copy_(factor[slice(*layer.out_slice)] if layer.out_slice else factor)


def _names(
    modules: list[str], on_input: list[str], all_modules: set[str], taken: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Return short names of all targets, and of those whose input is scaled."""
    feedforward = peft.shortest_names(on_input, all_modules, taken)
    others = peft.shortest_names([m for m in modules if m not in on_input], all_modules, taken)
    return [*others, *feedforward], feedforward


def _full_factor(adapter: Any, out_features: int) -> Tensor:
    """Return the factors of all outputs, (out_features,); 1 where an output is not adapted."""
    if adapter.out_slice is None:
        return adapter.factor  # type: ignore[no-any-return]
    start, stop = adapter.out_slice
    return F.pad(adapter.factor, (start, out_features - stop), value=1.0)

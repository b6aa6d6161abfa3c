"""IA3 learns factors that rescale the keys, the values and the hidden activations of the feed-forward block.

    y = W (l * x) + b        # in layers of `feedforward`, the factors l (in) scale the input
    y = l * (W x + b)        # in other layers and in slices of fused layers, the factors l (out) scale the output

All factors start at 1, so the output is initially unchanged. Source: Liu et al. 2022, arXiv:2205.05638. Files hold
the factors as base_model.model.<path>.ia3_l (1, in) or (out, 1). Outputs without an adapter have the factor 1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lora_lab.errors import BadValue
from lora_lab.lazy import Tensor, nn, torch
from lora_lab.methods.base import adapter_layer, attach, peft, register
from lora_lab.methods.layer_method import TargetMethod, gather, scatter
from lora_lab.methods.targets import ROLES, choose


@register
@dataclass(frozen=True)
class IA3(TargetMethod):
    """Learn factors that scale the input of the targets in `feedforward` and the output of the other targets.

    Raises: BadValue for targets that are not strings, or if `feedforward` is not a subset of `targets`.
    """

    name, peft_type = "ia3", "IA3"
    by_output: ClassVar[Mapping[str, str]] = {"ia3_l": "factor"}
    always: ClassVar[Mapping[str, Any]] = {"init_ia3_weights": True}

    targets: tuple[str, ...] = ("k", "v", "down")
    feedforward: tuple[str, ...] = ("down",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for target in self.feedforward:
            if target not in self.targets:
                raise BadValue(f"feedforward contains '{target}', which is not among the targets {list(self.targets)}")

    def places(self, model: nn.Module) -> list[tuple[str, dict[str, Any]]]:
        on_input = choose(self.feedforward, attach.sites_of(model)) if self.feedforward else []
        for s in on_input:
            if s.out_slice:
                message = f"{s.name} shares its input with the rest of the layer, so it cannot have its own factor"
                raise BadValue(f"{message}: leave {s.role} out of feedforward")
        paths = {s.module for s in on_input}
        return [(path, {**options, "on_input": path in paths}) for path, options in super().places(model)]

    def start(self, layer: nn.Module, **options: Any) -> dict[str, Tensor]:
        weight = adapter_layer.out_by_in(layer)
        count = weight.shape[1] if options["on_input"] else len(gather(weight, options["rows"]))
        return {"factor": torch.ones(count, device=weight.device)}

    def before(self, adapter: Any, x: Tensor) -> Tensor:
        return x * adapter.factor.to(x.dtype) if adapter.on_input else x

    def after(self, adapter: Any, y: Tensor, x: Tensor) -> Tensor:
        return y if adapter.on_input else y * scatter(adapter.factor, adapter.rows, y.shape[-1], 1.0).to(y.dtype)

    def merged_weights(self, adapter: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if adapter.on_input:
            return weight * adapter.factor, bias
        factor = scatter(adapter.factor, adapter.rows, len(weight), 1.0)
        return weight * factor[:, None], None if bias is None else bias * factor

    def saved(self, adapter: Any, key: str) -> dict[str, Tensor]:
        factor = scatter(adapter.factor, adapter.rows, len(adapter_layer.out_by_in(adapter)), 1.0)
        return {f"{key}ia3_l": factor[None, :] if adapter.on_input else factor[:, None]}

    def to_peft(self, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        adapted = dict(attach.method_layers(model))
        on_input = [path for path, layer in adapted.items() if layer.on_input]
        targets, feedforward = _names(list(adapted), on_input, peft.layer_names(model))
        tensors, config = super().to_peft(model)
        return tensors, {**config, "target_modules": targets, "feedforward_modules": feedforward}

    @classmethod
    def from_peft(cls, config: Mapping[str, Any], model: nn.Module) -> IA3:
        sites = attach.sites_of(model)
        modules, suffixes = peft.matched(config, sites), peft.required(config, "feedforward_modules") or []
        # PEFT's rule here is looser than for targets: any suffix of the path matches, even without a preceding dot.
        if isinstance(suffixes, str):
            on_input = peft.fitting(suffixes, modules)
        else:
            on_input = [module for module in modules if module.endswith(tuple(suffixes))]
        targets, feedforward = _names(modules, on_input, {site.module for site in sites}, ROLES)
        return cls(targets=tuple(targets), feedforward=tuple(feedforward))


def _names(modules: list[str], on_input: list[str], *known: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the `shortest_names` of all targets, and those of the targets whose input is scaled."""
    feedforward = peft.shortest_names(on_input, *known)
    others = peft.shortest_names([m for m in modules if m not in on_input], *known)
    return [*others, *feedforward], feedforward

"""IA3's files, in PEFT's layout.

    base_model.model.<path>.ia3_l      (1, in) on a layer's input, (out, 1) on its output

PEFT knows no slices of a fused layer: k and v of GPT-2's c_attn are one ia3_l there, with ones for q.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.layers import innermost, is_conv1d, out_by_in
from lora_lab.methods.attach import MethodLayer, sites_of
from lora_lab.methods.base import Report
from lora_lab.methods.ia3 import IA3, whole
from lora_lab.methods.layouts.base import PREFIX, Layout, by_module, common_config, fill_heads, head_tensors
from lora_lab.methods.layouts.targets import fitting, layer_names, matched, required, shortest_names
from lora_lab.methods.targets import ROLES


class IA3Layout(Layout):
    """Factors by module."""

    peft_types = ("IA3",)
    decisive = ("peft_type", "target_modules", "feedforward_modules")

    def tensors(self, model: nn.Module, report: Report) -> dict[str, Tensor]:
        tensors = {}
        for path, factors in by_module(model, MethodLayer).items():
            outputs = len(out_by_in(factors[0]))
            product = torch.stack([whole(factor, outputs) for factor in factors]).prod(0)  # 1 where another slice is
            tensors[f"{PREFIX}{path}.ia3_l"] = product[None, :] if factors[0].on_input else product[:, None]
        return tensors | head_tensors(model)

    def config(self, model: nn.Module, report: Report) -> dict[str, Any]:
        found = by_module(model, MethodLayer)
        on_input = [path for path, factors in found.items() if factors[0].on_input]
        targets, feedforward = _names(list(found), on_input, layer_names(model))
        return {
            "peft_type": "IA3",
            "target_modules": targets,
            "feedforward_modules": feedforward,
            "fan_in_fan_out": any(is_conv1d(innermost(model.get_submodule(path))) for path in found),
            "init_ia3_weights": True,
            **common_config(model, report),
        }

    def method(self, config: Mapping[str, Any], model: nn.Module) -> IA3:
        sites = sites_of(model)
        modules, wanted = matched(config, sites), required(config, "feedforward_modules") or []
        on_input = _peft_feedforward(wanted, modules)
        targets, feedforward = _names(modules, on_input, {site.module for site in sites}, taken=ROLES)
        return IA3(targets=tuple(targets), feedforward=tuple(feedforward))

    @torch.no_grad()
    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        for path, factors in by_module(model, MethodLayer).items():
            every = tensors[f"{PREFIX}{path}.ia3_l"].flatten()
            for factor in factors:
                factor.factor.copy_(every[slice(*factor.out_slice)] if factor.out_slice else every)
        fill_heads(model, tensors)


def _names(
    modules: list[str], on_input: list[str], every: set[str], taken: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Short names of the targets and of those on whose input the factor is, which have to be among the targets'."""
    feedforward = shortest_names(on_input, every, taken)
    others = shortest_names([m for m in modules if m not in on_input], every, taken)
    return [*others, *feedforward], feedforward


def _peft_feedforward(wanted: str | list[str], modules: list[str]) -> list[str]:
    """PEFT's own rule, which is looser than that for targets: any end of the path, dot or no dot."""
    if isinstance(wanted, str):
        return fitting(wanted, modules)
    return [module for module in modules if module.endswith(tuple(wanted))]

"""The files of the methods whose A and B are frozen: VeRA's and TinyLoRA's in PEFT's layout, LoRA-XS's as a LoRA.

base_model.vera_A | vera_B                      (rank, largest in) | (largest out, rank), unless left out
base_model.model.<path>.vera_lambda_d | _b      (rank,) | (out,), zero where outputs are not adapted

base_model.tinylora_v.<group>                   (u,)
base_model.model.<path>.tinylora_A | _B | _P    (rank, in) | (out, rank) | (u, rank, rank), P unless left out

base_model.model.<path>.lora_A.weight           A (rank, in)
base_model.model.<path>.lora_B.weight           B R (out, rank)
base_model.model.<path>.loraxs_B | loraxs_R     (out, rank) | (rank, rank), which PEFT passes over
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.layers import innermost, is_conv1d, out_by_in
from lora_lab.methods.attach import MethodLayer, sites_of
from lora_lab.methods.base import Method, Report
from lora_lab.methods.layer_method import LayerMethod
from lora_lab.methods.layouts.base import PREFIX, Layout, by_module, common_config, head_tensors
from lora_lab.methods.layouts.targets import layer_names, matched, required, shortest_names
from lora_lab.methods.shared import FrozenPair, TinyLoRA, VeRA, picked, spread
from lora_lab.methods.targets import ROLES


class FrozenPairLayout(Layout):
    """What the three have in common.

    peft_type   in their config
    options     PEFT's words for the method's options
    plain       options of PEFT's that are always the same
    """

    peft_type: ClassVar[str]
    options: ClassVar[Mapping[str, str]]
    plain: ClassVar[Mapping[str, Any]] = {}
    made: ClassVar[type[FrozenPair]]

    def __init__(self) -> None:
        self.decisive = ("peft_type", "target_modules", *self.options)

    def own(self, part: Any, method: Any, key: str) -> dict[str, Tensor]:
        """What the file holds of one layer, whose keys begin with `key`."""
        raise NotImplementedError

    def tensors(self, model: nn.Module, report: Report) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for path, (part,) in by_module(model, MethodLayer).items():
            tensors |= self.own(part, report.method, f"{PREFIX}{path}.")
        return tensors | head_tensors(model)

    def config(self, model: nn.Module, report: Report) -> dict[str, Any]:
        found = by_module(model, MethodLayer)
        return {
            "peft_type": self.peft_type,
            "target_modules": shortest_names(found, layer_names(model)),
            **{theirs: getattr(report.method, ours) for theirs, ours in self.options.items()},
            **self.plain,
            "fan_in_fan_out": any(is_conv1d(innermost(model.get_submodule(path))) for path in found),
            "bias": "none",
            **common_config(model, report),
        }

    def method(self, config: Mapping[str, Any], model: nn.Module) -> Method:
        sites = sites_of(model)
        targets = shortest_names(matched(config, sites), [site.module for site in sites], taken=ROLES)
        given = {ours: required(config, theirs) for theirs, ours in self.options.items()}
        return self.made(targets=tuple(targets), **given)  # type: ignore[call-arg]

    def check(self, config: Mapping[str, Any]) -> None:
        if config.get("bias") not in ("none", None):
            said = f"the adapter was trained with bias={config['bias']!r}"
            raise BadValue(f"{said}, which lora_lab does not compute")

    def attach(self, method: Method, model: nn.Module) -> Report:
        assert isinstance(method, LayerMethod)
        return method.attach(model, to_fill=True)

    @torch.no_grad()
    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        for key, tensor in self.tensors(model, report).items():
            tensor.copy_(tensors[key])


class VeRALayout(FrozenPairLayout):
    """d and b by module; A and B once."""

    peft_type, peft_types, made = "VERA", ("VERA",), VeRA
    options: ClassVar[Mapping[str, str]] = {
        "r": "rank", "d_initial": "d_initial", "projection_prng_key": "projection_seed",
        "save_projection": "save_projection",
    }  # fmt: skip
    plain: ClassVar[Mapping[str, Any]] = {"vera_dropout": 0.0, "init_weights": True}

    def own(self, part: Any, method: Any, key: str) -> dict[str, Tensor]:
        b = spread(part.vera_lambda_b, part.rows, len(out_by_in(part)))
        own = {f"{key}vera_lambda_b": b, f"{key}vera_lambda_d": part.vera_lambda_d}
        shared = {"base_model.vera_A": part.frozen.A, "base_model.vera_B": part.frozen.B}
        return own | shared if method.save_projection else own

    @torch.no_grad()
    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        super().fill(model, report, tensors)
        for path, (part,) in by_module(model, MethodLayer).items():  # of a fused layer, what was filled is a copy
            part.vera_lambda_b.copy_(picked(tensors[f"{PREFIX}{path}.vera_lambda_b"], part.rows))


class TinyLoRALayout(FrozenPairLayout):
    """A, B and P by module, v by group."""

    peft_type, peft_types, made = "TINYLORA", ("TINYLORA",), TinyLoRA
    options: ClassVar[Mapping[str, str]] = {
        "r": "rank", "u": "u", "weight_tying": "weight_tying", "projection_seed": "projection_seed",
        "save_projection": "save_projection",
    }  # fmt: skip
    plain: ClassVar[Mapping[str, Any]] = {"tinylora_dropout": 0.0, "init_weights": True}

    def own(self, part: Any, method: Any, key: str) -> dict[str, Tensor]:
        frozen = {f"{key}tinylora_{name}": tensor for name, tensor in part.frozen.named_buffers()}
        if not method.save_projection:
            del frozen[f"{key}tinylora_P"]
        return frozen | {f"base_model.tinylora_v.{part.group}": part.shared.v}


class LoRAXSLayout(FrozenPairLayout):
    """A LoRA of A and B R. Where our header is gone it is read as that."""

    peft_type, peft_types = "LORA", ()
    options: ClassVar[Mapping[str, str]] = {"r": "rank", "lora_alpha": "alpha"}
    plain: ClassVar[Mapping[str, Any]] = {"lora_dropout": 0.0, "use_rslora": False, "init_lora_weights": True}

    def own(self, part: Any, method: Any, key: str) -> dict[str, Tensor]:
        a, b, r = part.frozen.A, part.frozen.B, part.lora_R
        lora = {f"{key}lora_A.weight": a, f"{key}lora_B.weight": b @ r}
        return lora | {f"{key}loraxs_B": b, f"{key}loraxs_R": r}

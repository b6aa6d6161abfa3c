"""LoRA's files, in PEFT's layout.

    base_model.model.<path>.lora_A.weight         (rank, in)
    base_model.model.<path>.lora_B.weight         (out, rank)
    base_model.model.<path>.lora_embedding_A      (rank, vocabulary), likewise _B (d, rank), with no ".weight"
    base_model.model.classifier.weight | bias     the head

PEFT knows no slices of a fused layer. Our q and v of rank r on GPT-2's c_attn are exactly one of rank 2r:

    A = | A_q |  (2r, in)        B = | B_q  0  |  (3d, 2r)
        | A_v |                      | 0    0  |  <- the k rows
                                     | 0   B_v |

so the file holds more numbers than train. PiSSA's is what it is on the original base, a LoRA of twice the rank with
A = [A; A0] and B = [B, -B0], where A0 and B0 are what A and B started as. DoRA adds `<path>.lora_magnitude_vector`
(out,).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear, innermost, is_conv1d
from lora_lab.methods.attach import own_parameters, sites_of
from lora_lab.methods.base import Method, Placement, Report
from lora_lab.methods.layouts.base import PREFIX, Layout, by_module, common_config, fill_heads, head_tensors
from lora_lab.methods.layouts.lora_config import check_options, lora_from_peft, peft_from_lora
from lora_lab.methods.layouts.targets import layer_names
from lora_lab.methods.lora import LoRA
from lora_lab.methods.lora_layers import LoRALayer, file_pair, fill_pair

# Named in PEFT's files as in the layer; A and B of a linear layer end in ".weight" there.
AS_THEY_ARE = ("lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")


class LoRALayout(Layout):
    """A and B by module."""

    peft_types = ("LORA",)
    decisive = (
        "peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "rank_pattern", "alpha_pattern",
    )  # fmt: skip

    def tensors(self, model: nn.Module, report: Report) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for path, layers in _by_module(model).items():
            key = f"{PREFIX}{path}."
            tensors |= {key + name: p for name, p in own_parameters(layers[0]) if name in AS_THEY_ARE}
            if slices := [layer for layer in layers if isinstance(layer, LoRALinear)]:
                tensors[f"{key}lora_A.weight"], tensors[f"{key}lora_B.weight"] = one_for_all_slices(slices)
        return tensors | head_tensors(model)

    def config(self, model: nn.Module, report: Report) -> dict[str, Any]:
        method = report.method
        assert isinstance(method, LoRA)
        around = {path: list(group) for path, group in groupby(report.placements, key=lambda p: p.site.module)}
        ranks = {path: sum(method.file_rank(p.rank) for p in parts) for path, parts in around.items()}
        fused = {path: (ranks[path], parts[0].scaling) for path, parts in around.items()}
        transposed = any(is_conv1d(innermost(model.get_submodule(path))) for path in fused)
        written = peft_from_lora(method, fused, layer_names(model), transposed=transposed)
        return written | common_config(model, report)

    def check(self, config: Mapping[str, Any]) -> None:
        check_options(config)

    def method(self, config: Mapping[str, Any], model: nn.Module) -> LoRA:
        sites = sites_of(model)
        method = lora_from_peft(config, sites)
        if config.get("ensure_weight_tying") and _is_tied(model) and _copied(method.place(sites, trained=True)):
            said = "the adapter was trained with ensure_weight_tying=True beside tied embeddings, which"
            raise BadValue(f"{said} lora_lab does not compute: merge it in PEFT first")
        return method

    def attach(self, method: Method, model: nn.Module) -> Report:
        assert isinstance(method, LoRA)
        return method.attach_layers(model, to_fill=True)

    @torch.no_grad()
    def fill(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        for path, layers in _by_module(model).items():
            key = f"{PREFIX}{path}."
            for name, p in own_parameters(layers[0]):
                if name in AS_THEY_ARE:
                    p.copy_(tensors[key + name])
            if slices := [layer for layer in layers if isinstance(layer, LoRALinear)]:
                _split(slices, tensors[f"{key}lora_A.weight"], tensors[f"{key}lora_B.weight"])
        fill_heads(model, tensors)

    def copies(self, report: Report) -> set[str]:
        return {key for path in _copied(report.placements) for key in _copy_keys(path)}

    def check_copies(self, model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
        """PEFT also writes what an adapted embedding or lm_head had: take it if it is this base's own, else refuse."""
        for path in _copied(report.placements):
            frozen = innermost(model.get_submodule(path))
            for key, name in ((key, name) for key, name in _copy_keys(path).items() if key in tensors):
                own, copied = getattr(frozen, name, None), tensors[key]
                if own is None or copied.shape != own.shape or not torch.equal(copied.to(own), own):
                    raise BadValue(f"the adapter brings its own {path}, which differs from this base model's")


def _is_tied(model: Any) -> bool:
    """Whether what reads the tokens and what answers share a weight."""
    answers = getattr(model, "get_output_embeddings", lambda: None)()
    return answers is not None and answers.weight is model.get_input_embeddings().weight


def _copied(placements: Iterable[Placement]) -> list[str]:
    """The modules whose frozen weight PEFT writes as well: it fears that the vocabulary has grown."""
    return [p.site.module for p in placements if p.site.kind == "embedding" or p.site.role == "head"]


def _copy_keys(module: str) -> dict[str, str]:
    return {f"{PREFIX}{module}.{between}{name}": name for between in ("base_layer.", "") for name in ("weight", "bias")}


def _by_module(model: nn.Module) -> dict[str, list[LoRALayer]]:
    """The LoRA layers around each module, in the order of their rows."""
    around = by_module(model, LoRALayer)
    return {
        path: sorted(found, key=lambda x: getattr(x, "out_slice", None) or (0, 0)) for path, found in around.items()
    }


def one_for_all_slices(layers: list[LoRALinear]) -> tuple[Tensor, Tensor]:
    """A (sum of ranks, in) and B (out, sum of ranks) of the one adapter that equals these on one layer."""
    if layers[0].out_slice is None:
        return file_pair(layers[0])
    a = torch.cat([file_pair(layer)[0] for layer in layers])
    b = a.new_zeros(layers[0].out_features, a.shape[0])
    column = 0
    for layer in layers:
        relative = layer.scaling / layers[0].scaling  # the file has one scaling a module; 1 unless patterns differ
        own = file_pair(layer)[1] * relative
        b[slice(*layer.out_slice), column : column + own.shape[1]] = own  # type: ignore[misc]
        column += own.shape[1]
    return a, b


def _split(layers: list[LoRALinear], a: Tensor, b: Tensor) -> None:
    """The inverse of `one_for_all_slices`, into the layers' own parameters."""
    column = 0
    for layer in layers:
        part = slice(column, column + file_pair(layer)[0].shape[0])
        rows = slice(*layer.out_slice) if layer.out_slice else slice(None)
        fill_pair(layer, a[part], b[rows, part] / (layer.scaling / layers[0].scaling))
        column = part.stop

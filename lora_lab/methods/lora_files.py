"""LoRA's files in PEFT's layout, and its options in PEFT's words.

    base_model.model.<path>.lora_A.weight         (rank, in)
    base_model.model.<path>.lora_B.weight         (out, rank)
    base_model.model.<path>.lora_embedding_A      (rank, vocabulary), likewise _B (d, rank), with no ".weight"
    base_model.model.<path>.lora_magnitude_vector (out,), of DoRA

    rank, alpha                r, lora_alpha
    targets by role            target_modules by name
    patterns by target         rank_pattern, alpha_pattern by module path (regular expressions)
    q and v of one c_attn      one adapter on c_attn of rank r_q + r_v, for PEFT knows no slices:

        A = | A_q |  (2r, in)        B = | B_q  0  |  (3d, 2r)
            | A_v |                      | 0    0  |  <- the k rows
                                         | 0   B_v |

so such a file holds more numbers than train. PiSSA's is what it is on the original base: a LoRA of twice the rank with
A = [A; A0] and B = [B, -B0], where A0 and B0 are what A and B started as.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import innermost, is_conv1d
from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import own_parameters
from lora_lab.methods.base import Placement, Report
from lora_lab.methods.lora_layers import LoRALayer, file_pair, fill_pair
from lora_lab.methods.peft import (
    PREFIX,
    by_module,
    common_config,
    fill_heads,
    head_tensors,
    layer_names,
    matched,
    required,
    shortest_names,
    values_by_pattern,
)  # fmt: skip
from lora_lab.methods.targets import ROLES, Site

AS_THEY_ARE = ("lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")  # named as in the layer

# Options of PEFT that change what an adapter computes and that we do not have: refused unless they stand at these.
PLAIN = {
    "bias": ("none", None),
    "lora_bias": (False, None),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "use_qalora": (False, None),
    "use_bdlora": (None, False),
    "arrow_config": (None,),
    "megatron_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "velora_config": (None,),
}
_SPECIAL_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")  # these change the base weight as well


def to_peft(method: Any, model: nn.Module, report: Report) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a file of an attached LoRA holds, by key, and PEFT's config of it."""
    tensors: dict[str, Tensor] = {}
    for path, layers in by_module(model, LoRALayer).items():
        tensors |= {f"{PREFIX}{path}.{name}": p for name, p in own_parameters(layers[0]) if name in AS_THEY_ARE}
        if slices := [layer for layer in layers if isinstance(layer, LoRALinear)]:
            a, b = one_for_all_slices(slices)
            tensors |= {f"{PREFIX}{path}.lora_A.weight": a, f"{PREFIX}{path}.lora_B.weight": b}
    around = {path: list(group) for path, group in groupby(report.placements, key=lambda p: p.site.module)}
    ranks = {path: sum(method.file_rank(p.rank) for p in parts) for path, parts in around.items()}
    alphas: dict[str, float] = {}
    for path, parts in around.items():
        alpha = parts[0].scaling * (ranks[path] ** 0.5 if method.rslora else ranks[path])
        whole = math.isclose(alpha, round(alpha), rel_tol=1e-9)  # PEFT writes whole alphas as integers
        alphas[path] = round(alpha) if whole else alpha
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return tensors | head_tensors(model), {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": method.dropout,
        "use_rslora": method.rslora,
        "target_modules": shortest_names(ranks, layer_names(model)),
        "rank_pattern": {m: r for m, r in ranks.items() if r != rank},
        "alpha_pattern": {m: a for m, a in alphas.items() if a != alpha},
        "fan_in_fan_out": any(is_conv1d(innermost(model.get_submodule(path))) for path in ranks),
        "bias": "none",
        "init_lora_weights": method.init if method.init == "gaussian" else True,  # PiSSA's file holds its start
        **({"use_dora": True} if method.dora else {}),
        **common_config(model, report),
    }


def check_options(config: Mapping[str, Any]) -> None:
    """Raises BadValue for a config with an option that we do not compute."""
    for option, plain in PLAIN.items():
        if config.get(option) not in plain:
            raise BadValue(f"the adapter was trained with {option}={config[option]!r}, which lora_lab does not compute")
    init = str(config.get("init_lora_weights", True))
    if init.lower().startswith(_SPECIAL_INITS):
        raise BadValue(f"the adapter was trained with init_lora_weights={init!r}, which changes the base weight too")


def from_peft(config: Mapping[str, Any], sites: Sequence[Site]) -> dict[str, Any]:
    """The options of the LoRA that a config of PEFT's describes on a model with these sites.

    Raises: BadValue for an impossible value; NotFound when target_modules match nothing.
    """
    modules = matched(config, sites)
    rank, alpha = required(config, "r"), required(config, "lora_alpha")
    ranks = values_by_pattern(config.get("rank_pattern"), modules, rank)
    alphas = values_by_pattern(config.get("alpha_pattern"), modules, alpha)
    return {
        "rank": rank,
        "alpha": alpha,
        "targets": tuple(shortest_names(modules, (s.module for s in sites), taken=ROLES)),
        "dropout": config.get("lora_dropout") or 0.0,
        "rslora": bool(config.get("use_rslora")),
        "dora": bool(config.get("use_dora")),
        "rank_pattern": {m: r for m, r in ranks.items() if r != rank},
        "alpha_pattern": {m: a for m, a in alphas.items() if a != alpha},
    }


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `to_peft`, into a model to which the method is attached."""
    for path, layers in by_module(model, LoRALayer).items():
        for name, p in own_parameters(layers[0]):
            if name in AS_THEY_ARE:
                p.copy_(tensors[f"{PREFIX}{path}.{name}"])
        column, a, b = 0, *(tensors.get(f"{PREFIX}{path}.lora_{m}.weight") for m in "AB")
        for layer in (layer for layer in layers if isinstance(layer, LoRALinear)):
            assert a is not None
            assert b is not None
            part = slice(column, column + file_pair(layer)[0].shape[0])
            rows = slice(*layer.out_slice) if layer.out_slice else slice(None)
            fill_pair(layer, a[part], b[rows, part] / (layer.scaling / layers[0].scaling))
            column = part.stop
    fill_heads(model, tensors)


def copied(placements: Iterable[Placement]) -> list[str]:
    """The modules whose frozen weight PEFT writes as well: it fears that the vocabulary has grown."""
    return [p.site.module for p in placements if p.site.kind == "embedding" or p.site.role == "head"]


def copy_keys(module: str) -> dict[str, str]:
    """The keys under which it does, and the name of the tensor of each."""
    return {f"{PREFIX}{module}.{between}{name}": name for between in ("base_layer.", "") for name in ("weight", "bias")}


def check_copies(model: nn.Module, report: Report, tensors: Mapping[str, Tensor]) -> None:
    """Raises BadValue where such a copy is not this base's own."""
    for path in copied(report.placements):
        frozen = innermost(model.get_submodule(path))
        for key, name in ((key, name) for key, name in copy_keys(path).items() if key in tensors):
            own, copy = getattr(frozen, name, None), tensors[key]
            if own is None or copy.shape != own.shape or not torch.equal(copy.to(own), own):
                raise BadValue(f"the adapter brings its own {path}, which differs from this base model's")


def is_tied(model: Any) -> bool:
    """Whether what reads the tokens and what answers share a weight."""
    answers = getattr(model, "get_output_embeddings", lambda: None)()
    return answers is not None and answers.weight is model.get_input_embeddings().weight


def one_for_all_slices(layers: Sequence[LoRALinear]) -> tuple[Tensor, Tensor]:
    """A (sum of ranks, in) and B (out, sum of ranks) of the one adapter that equals these on one layer."""
    if layers[0].out_slice is None:
        return file_pair(layers[0])
    a = torch.cat([file_pair(layer)[0] for layer in layers])
    b = a.new_zeros(layers[0].out_features, a.shape[0])
    column = 0
    for layer in layers:
        own = file_pair(layer)[1] * (layer.scaling / layers[0].scaling)  # the file has one scaling a module
        b[slice(*layer.out_slice), column : column + own.shape[1]] = own  # type: ignore[misc]
        column += own.shape[1]
    return a, b

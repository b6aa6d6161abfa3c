"""Between our LoRA and PEFT's `adapter_config.json`: the same idea in two vocabularies.

ours                     PEFT's
rank, alpha              r, lora_alpha
targets by role          target_modules by name
patterns by target       rank_pattern, alpha_pattern by module path (regular expressions)
q and v of one c_attn    one adapter on c_attn of rank r_q + r_v (PEFT has no slices)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_lab.errors import BadValue
from lora_lab.methods.layouts.targets import matched, patterns_from_a_file, required, shortest_names
from lora_lab.methods.lora import LoRA
from lora_lab.methods.targets import ROLES, Site

# Options of PEFT that change what an adapter computes and that we do not have: refused unless they stand at these.
_PLAIN = {
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


def check_options(config: Mapping[str, Any]) -> None:
    """Raises BadValue for a PEFT config with an option that we do not compute."""
    for option, plain in _PLAIN.items():
        if config.get(option) not in plain:
            raise BadValue(f"the adapter was trained with {option}={config[option]!r}, which lora_lab does not compute")
    init = str(config.get("init_lora_weights", True))
    if init.lower().startswith(_SPECIAL_INITS):
        raise BadValue(f"the adapter was trained with init_lora_weights={init!r}, which changes the base weight too")


def lora_from_peft(config: Mapping[str, Any], sites: Sequence[Site]) -> LoRA:
    """The LoRA that a PEFT config, past `check_options`, describes on a model with these sites.

    Raises: BadValue for an impossible value; NotFound when target_modules match nothing.
    """
    modules = matched(config, sites)
    rank, alpha = required(config, "r"), required(config, "lora_alpha")
    ranks = values_by_pattern(config.get("rank_pattern"), modules, rank)
    alphas = values_by_pattern(config.get("alpha_pattern"), modules, alpha)
    return LoRA(
        rank=rank,
        alpha=alpha,
        targets=tuple(shortest_names(modules, (s.module for s in sites), taken=ROLES)),
        dropout=config.get("lora_dropout") or 0.0,
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        rank_pattern={m: r for m, r in ranks.items() if r != rank},
        alpha_pattern={m: a for m, a in alphas.items() if a != alpha},
    )


def peft_from_lora(
    method: LoRA, fused: Mapping[str, tuple[int, float]], modules: Iterable[str], *, transposed: bool
) -> dict[str, Any]:
    """The config under which PEFT computes the same: `fused` gives each module's rank and scaling in the file.

    `modules` are all sites' modules of the model, needed to write short names; transposed: the layers are Conv1D.
    """
    alphas = {m: _whole(scaling * (rank**0.5 if method.rslora else rank)) for m, (rank, scaling) in fused.items()}
    rank = Counter(rank for rank, _ in fused.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": method.dropout,
        "use_rslora": method.rslora,
        "target_modules": shortest_names(fused, modules),
        "rank_pattern": {m: r for m, (r, _) in fused.items() if r != rank},
        "alpha_pattern": {m: a for m, a in alphas.items() if a != alpha},
        "fan_in_fan_out": transposed,
        "bias": "none",
        "init_lora_weights": method.init if method.init == "gaussian" else True,  # PiSSA's file holds its start
        **({"use_dora": True} if method.dora else {}),
    }


def values_by_pattern(pattern: Mapping[str, Any] | None, modules: Iterable[str], default: Any) -> dict[str, Any]:
    """The value of each module: that of the first pattern that fits the end of its path."""
    fullmatch, options = patterns_from_a_file(), list((pattern or {}).items())
    return {m: next((v for p, v in options if fullmatch(rf"(.*\.)?({p})", m)), default) for m in modules}


def _whole(alpha: float) -> float:
    """16.000000000000004 -> 16: PEFT writes whole alphas as integers."""
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-9) else alpha

"""PEFT's options, and PEFT's rules for module names."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import process_time
from typing import Any

import regex
from torch import nn

from lora_lab.adapter_layer import innermost, is_conv1d
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.attach import adapter_layers, plain_path
from lora_lab.methods.targets import ALL_LINEAR, Site, choose

# Options in PEFT's configs that lora_lab reads, or ignores because they have no effect
_OPTIONS = """
    alpha_pattern auto_mapping base_model_name_or_path bias corda_config d_initial encoder_dropout encoder_hidden_size
    encoder_num_layers encoder_reparameterization_type ensure_weight_tying eva_config exclude_modules
    fan_in_fan_out feedforward_modules inference_mode init_ia3_weights init_lora_weights init_v_bound init_weights
    layers_pattern layers_to_transform loftq_config lora_alpha lora_dropout lora_ga_config megatron_core modules_to_save
    num_attention_heads num_layers num_transformer_submodules num_virtual_tokens peft_type peft_version
    prefix_projection projection_prng_key projection_seed prompt_tuning_init prompt_tuning_init_text qalora_group_size
    r rank_pattern revision runtime_config save_projection target_modules task_type tinylora_dropout token_dim
    tokenizer_kwargs tokenizer_name_or_path u use_dora use_rslora vera_dropout weight_tying
"""
KNOWN = frozenset(_OPTIONS.split())
# Options that change the adapter's output and are not supported, and initializations that change the base weight
_UNSUPPORTED = (
    "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens",
    "use_qalora", "use_bdlora", "arrow_config", "megatron_config", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip
_SPECIAL_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


class Refused(BadValue):
    """The error for an adapter file that cannot be used. `fault` is the name of the fault, a key of `remedies.json`."""

    def __init__(self, message: str, fault: str) -> None:
        super().__init__(message)
        self.fault = fault


def check_supported(config: Mapping[str, Any]) -> None:
    """Check that a config has no unsupported options. Raises: Refused."""
    for option in ("bias", *_UNSUPPORTED):
        if (value := config.get(option)) and value != "none":
            message = f"the adapter was trained with {option}={value!r}, which lora_lab does not support"
            raise Refused(f"{message}: merge the adapter in PEFT first", "not supported")
    init = str(config.get("init_lora_weights", True))
    if init.lower().startswith(_SPECIAL_INITS):
        message = f"the adapter was trained with init_lora_weights={init!r}, which changes the base weight too"
        raise Refused(f"{message}: merge the adapter in PEFT first", "not supported")


def layer_config(model: nn.Module, paths: Collection[str]) -> dict[str, Any]:
    """Return the config fields that PEFT expects from any method that adapts the layers at these paths."""
    everything = layer_names(model)
    targets: list[str] | str = shortest_names(paths, everything)
    if len(fitting(targets, everything)) > len(paths):  # a path such as "1" also names "0.1": write a pattern instead
        targets = "|".join(map(regex.escape, paths))
    conv1d = any(is_conv1d(innermost(model.get_submodule(path))) for path in paths)
    return {"target_modules": targets, "fan_in_fan_out": conv1d}


def misread_by_peft(model: nn.Module, config: Mapping[str, Any]) -> str:
    """Return a warning if PEFT would mistake the dense layers in a LoRA file for the model's experts, else "".

    PEFT 0.21 mistakes dense layers for experts in most models whose experts share a tensor, because it expects a layer
    for each expert, as in transformers 4.
    """
    adapted = (plain_path(path).rpartition(".")[2] for path, _ in adapter_layers(model))
    dense = [name for name in adapted if name.endswith(("gate_proj", "up_proj", "down_proj"))]
    experts = any(name.endswith("experts.down_proj") for name, _ in model.named_parameters())
    kind = getattr(getattr(model, "config", None), "model_type", "qwen2_moe")  # PEFT reads qwen2_moe correctly
    if config["peft_type"] != "LORA" or not dense or not experts or kind == "qwen2_moe":
        return ""
    message = f"PEFT may mistake {dense[0]} for this model's experts and drop what was trained: load this file with"
    return f"{message} load_adapter, merge it with merge_for_good, or adapt no MLP layer"


def required(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a required field. Raises: BadValue if the field is missing."""
    if key not in config:
        raise BadValue(f"adapter_config.json has no '{key}'")
    return config[key]


def layer_names(model: nn.Module) -> set[str]:
    """Return the paths of all modules, which PEFT compares with its targets. The model may already have an adapter."""
    return {plain_path(name) for name, _ in model.named_modules()}


def shortest_names(chosen: Iterable[str], all_modules: Iterable[str], taken: Collection[str] = ()) -> list[str]:
    """Return the shortest suffixes that name exactly the chosen modules, such as query and value instead of 12 paths.

    taken   Names that must not be used, because they already mean something else. In lora_lab, these are the roles.
    """

    def suffixes(path: str) -> list[str]:
        parts = path.split(".")
        return [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]

    chosen, last = list(chosen), only if taken else str
    taken = {*taken, *(suffix for other in {*all_modules} - {*chosen} for suffix in suffixes(other))}
    return list(dict.fromkeys(next((s for s in suffixes(path) if s not in taken), last(path)) for path in chosen))


def only(path: str) -> str:
    """Return a pattern for `targets` that matches only this path: neither a longer path that ends in it nor a role."""
    return f"[{path[0]}]{path[1:]}"


def endings(paths: Iterable[str]) -> set[str]:
    """Return all shorter endings of each path, such as "proj" for "encoder.proj"."""
    return {path[n + 1 :] for path in paths for n, character in enumerate(path) if character == "."}


def matched(config: Mapping[str, Any], sites: Sequence[Site]) -> list[str]:
    """Return the modules that PEFT would select by `target_modules`, `exclude_modules` and `layers_to_transform`.

    Raises: BadValue if there are no targets, and NotFound if the targets match nothing.
    """
    targets, excluded, layers = map(config.get, ("target_modules", "exclude_modules", "layers_to_transform"))
    if not targets:
        raise BadValue("target_modules is empty, so the config does not say which layers the adapter belongs to")
    layer_sites = [site for site in sites if site.out_slice is None]
    if targets == ALL_LINEAR:  # PEFT's all-linear, unlike ours, includes BERT's pooler
        names = [s.module for s in layer_sites if s in choose([ALL_LINEAR], sites) or s.role == "pooler"]
    else:
        names = fitting(targets, [s.module for s in layer_sites])
    removed = set(fitting(excluded, names)) if excluded else set()
    if layers or layers == 0:
        fullmatch, layers = patterns_from_a_file(), [layers] if isinstance(layers, int) else layers
        patterns = config.get("layers_pattern") or []
        patterns = [patterns] if isinstance(patterns, str) else patterns
        # A layer's index is the first number after at least two other parts of its name, or after a given pattern.
        regexes = [rf"(?:.*?\.)?(?:{pattern})\.(\d+)\..*" for pattern in patterns] or [r".*?\.[^.]*\.(\d+)\..*"]
        for name in names:
            match = next(filter(None, (fullmatch(pattern, name) for pattern in regexes)), None)
            is_full_path = not isinstance(targets, str) and name in targets  # full paths are not filtered by layer
            if not is_full_path and (match is None or int(match[match.re.groups]) not in layers):
                removed.add(name)
    if names := [name for name in names if name not in removed]:
        return names
    raise NotFound(f"target_modules {targets!r} match no layer of this model: was the adapter made for this base?")


def fitting(targets: str | Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the names that match PEFT's targets: a pattern for full names, or a list of suffixes. Raises: BadValue."""
    if isinstance(targets, str):
        fullmatch = patterns_from_a_file()
        return [name for name in names if fullmatch(targets, name)]
    suffixes = tuple(f".{target}" for target in targets)
    return [name for name in names if f".{name}".endswith(suffixes)]


def values_by_pattern(pattern: Mapping[str, Any] | None, modules: Iterable[str], default: Any) -> dict[str, Any]:
    """Return a value for each module, set by the first pattern that matches the end of the module's path."""
    fullmatch, options = patterns_from_a_file(), list((pattern or {}).items())
    return {m: next((v for p, v in options if fullmatch(rf"(.*\.)?({p})", m)), default) for m in modules}


_UNSAFE = regex.compile(r"\(\?(?![:=!]|i\))|\(\*|\{(?!\d{0,3}(,\d{0,3})?\})")  # recursion, fuzzy matching, look-behind


def patterns_from_a_file(seconds: float = 2.0) -> Callable[[str, str], Any]:
    """Return a function `fullmatch(pattern, name)` for untrusted regular expressions. All calls share a CPU-time limit.

    Matching `(a|a)*[bc]` with thirty a's takes 2^30 steps. Python's `re` has no timeout. The `regex` package has a
    timeout, but expands counted repeats before its timer starts, so the product of the counts is limited as well.
    `fullmatch` raises BadValue if a pattern is invalid, too large for module names, or too slow.
    """

    def fullmatch(pattern: str, name: str) -> Any:
        nonlocal seconds
        small = isinstance(pattern, str) and len(pattern) <= 2000 and not _UNSAFE.search(pattern)
        if not small or len(pattern) * math.prod(int(n) or 1 for n in regex.findall(r"(\d+),?\}", pattern)) > 50_000:
            raise BadValue(f"{str(pattern)[:60]!r} is not a pattern for module names: list the modules instead")
        start = process_time()
        try:
            if seconds <= 0:
                raise TimeoutError
            return regex.fullmatch(pattern, name, timeout=seconds)
        except TimeoutError as error:
            raise BadValue(f"the pattern {pattern[:60]!r} takes too long: list the modules instead") from error
        except (regex.error, RecursionError, OverflowError) as error:
            raise BadValue(f"{pattern[:60]!r} is not a pattern: {error}") from error
        finally:
            seconds -= process_time() - start

    return fullmatch

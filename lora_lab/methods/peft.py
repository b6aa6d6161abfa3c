"""What adapter files share, and PEFT's rules for module names.

base_model.model.<path>. ...        what is trained beside a layer
base_model.model.classifier. ...    a head, in the files of prompts and prefixes base_model.classifier. ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from time import process_time
from typing import Any

import regex
import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import is_conv1d
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.attach import TrainedCopy, adapter_layers, plain_path
from lora_lab.methods.base import Report
from lora_lab.methods.targets import ALL_LINEAR, Site, choose

PREFIX, SOFT_PREFIX = "base_model.model.", "base_model."

# Options of PEFT's configs: each is read, refused where we do not compute it, or without effect on what is computed.
_OPTIONS = """
    alora_invocation_tokens alpha_pattern arrow_config auto_mapping base_model_name_or_path bias corda_config
    encoder_dropout encoder_hidden_size encoder_num_layers encoder_reparameterization_type ensure_weight_tying
    eva_config exclude_modules fan_in_fan_out feedforward_modules inference_mode init_ia3_weights
    init_lora_weights init_weights kasa_config layer_replication layers_pattern layers_to_transform loftq_config
    lora_alpha lora_bias lora_dropout lora_ga_config megatron_config megatron_core modules_to_save
    monteclora_config num_attention_heads num_layers num_transformer_submodules num_virtual_tokens peft_type
    peft_version prefix_projection prompt_tuning_init prompt_tuning_init_text qalora_group_size r rank_pattern
    revision runtime_config target_modules target_parameters task_type token_dim tokenizer_kwargs
    tokenizer_name_or_path trainable_token_indices use_bdlora use_dora use_qalora use_rslora velora_config
    d_initial init_v_bound projection_prng_key projection_seed save_projection tinylora_dropout u
    vera_dropout weight_tying
"""
KNOWN = frozenset(_OPTIONS.split())

# ---- heads, and what every config says


def by_module(model: nn.Module, kind: Any) -> dict[str, list[Any]]:
    """The adapter layers of a kind by module; around a fused module there may be several, in the order of slices."""
    found: dict[str, list[Any]] = {}
    for name, layer in adapter_layers(model):
        if isinstance(layer, kind):
            found.setdefault(plain_path(name), []).append(layer)
    return {path: sorted(ls, key=lambda x: getattr(x, "out_slice", None) or (0, 0)) for path, ls in found.items()}


def head_tensors(model: nn.Module, prefix: str = PREFIX) -> dict[str, Tensor]:
    """The trained copies of the heads, by key."""
    heads = [(name, head) for name, head in adapter_layers(model) if isinstance(head, TrainedCopy)]
    return {f"{prefix}{name}.{key}": value for name, h in heads for key, value in h.trained.state_dict().items()}


@torch.no_grad()
def fill_heads(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str = PREFIX) -> None:
    """The inverse of `head_tensors`; a head that is not in the file keeps the base's values."""
    for key, value in head_tensors(model, prefix).items():
        if key in tensors:
            value.copy_(tensors[key])


def head_prefixes(head: str) -> tuple[str, str]:
    """How the keys of a head begin."""
    return f"{PREFIX}{head}.", f"{SOFT_PREFIX}{head}."


def left_to_base(config: Mapping[str, Any], report: Report, keys: Iterable[str], there: Container[str]) -> set[str]:
    """The keys of heads that a PEFT file leaves to the base: the file lacks them, and its config doesn't mention it.

    After training on a finished classifier without a task_type, PEFT saves the head only if modules_to_save names it.
    """
    saved, left = tuple(config.get("modules_to_save") or ()), set[str]()
    for name in (name for name, _ in report.heads if not name.endswith(saved)):
        own = {key for key in keys if key.startswith(head_prefixes(name))}
        left |= set() if any(key in there for key in own) else own
    return left


def common_config(model: nn.Module, report: Report) -> dict[str, Any]:
    """The fields of every config: the kind of task, which decides PEFT's class, the heads, the name of the base."""
    name, heads = type(model).__name__, [name for name, _ in report.heads]
    known = {"ForTokenClassification": "TOKEN_CLS", "ForQuestionAnswering": "QUESTION_ANS"}
    task = next((task for ending, task in known.items() if name.endswith(ending)), "SEQ_CLS")
    task = task if heads else "FEATURE_EXTRACTION"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        task = "CAUSAL_LM"
    elif name.endswith("ForConditionalGeneration") and getattr(model.config, "is_encoder_decoder", False):
        task = "SEQ_2_SEQ_LM"
    usual = ["classifier", "score"] if task in ("SEQ_CLS", "TOKEN_CLS") else []  # as PEFT writes it
    return {
        "task_type": task,
        "modules_to_save": list(dict.fromkeys([*heads, *usual])) or None,
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None) or None,
        "inference_mode": True,
    }


def required(config: Mapping[str, Any], key: str) -> Any:
    """The value of a field. Raises: BadValue where there is none."""
    if key not in config:
        raise BadValue(f"adapter_config.json has no '{key}'")
    return config[key]


# ---- names of modules


def layer_names(model: nn.Module) -> set[str]:
    """The paths of all modules that PEFT could wrap, in a model that may be adapted already."""
    modules = model.named_modules()
    return {plain_path(name) for name, m in modules if isinstance(m, nn.Linear | nn.Embedding) or is_conv1d(m)}


def shortest_names(chosen: Iterable[str], all_modules: Iterable[str], taken: Collection[str] = ()) -> list[str]:
    """The shortest endings that name exactly the chosen modules: ["query", "value"] rather than twelve paths.

    taken   words that would mean something else
    """
    chosen = list(chosen)
    others, found = set(all_modules) - set(chosen), dict[str, None]()
    for path in chosen:
        parts = path.split(".")
        endings = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        alone = (e for e in endings if e not in taken and not any(f".{o}".endswith(f".{e}") for o in others))
        found[next(alone, path)] = None
    return list(found)


def matched(config: Mapping[str, Any], sites: Sequence[Site]) -> list[str]:
    """The modules that target_modules names, less exclude_modules, in layers_to_transform: all by PEFT's own rules.

    Raises: BadValue when there are no targets; NotFound when they match nothing.
    """
    wanted, excluded, layers = map(config.get, ("target_modules", "exclude_modules", "layers_to_transform"))
    if not wanted:
        raise BadValue("target_modules is empty, so the config does not say which layers the adapter belongs to")
    whole = [site for site in sites if site.out_slice is None]
    if wanted == ALL_LINEAR:  # PEFT's includes BERT's pooler, ours does not
        names = [s.module for s in whole if s in choose([ALL_LINEAR], sites) or s.role == "pooler"]
    else:
        names = fitting(wanted, [s.module for s in whole])
    left_out = set(fitting(excluded, names)) if excluded else set()
    if layers or layers == 0:
        layers = [layers] if isinstance(layers, int) else layers
        full = () if isinstance(wanted, str) else wanted  # a target that is a whole path is in any layer
        layer_of = _layer_numbers(config.get("layers_pattern"))
        left_out |= {name for name in names if name not in full and layer_of(name) not in layers}
    if names := [name for name in names if name not in left_out]:
        return names
    raise NotFound(f"target_modules {wanted!r} match no layer of this model: is it the base the adapter was made for?")


def _layer_numbers(patterns: str | Sequence[str] | None) -> Callable[[str], int | None]:
    """A function that finds the first number in a name, or the first after a list of layers that a pattern names."""
    patterns = [patterns] if isinstance(patterns, str) else patterns or []
    forms = [rf"(?:.*?\.)?(?:{pattern})\.(\d+)\..*" for pattern in patterns] or [r".*?\.(\d+)\..*"]
    match = patterns_from_a_file()

    def layer_of(name: str) -> int | None:
        found = next(filter(None, (match(form, name) for form in forms)), None)
        return int(found[found.re.groups]) if found else None

    return layer_of


def fitting(wanted: str | Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that fit by PEFT's rule: a pattern for the whole name, or a list of endings. Raises: BadValue."""
    if isinstance(wanted, str):
        match = patterns_from_a_file()
        return [name for name in names if match(wanted, name)]
    ends = tuple(f".{end}" for end in wanted)
    return [name for name in names if f".{name}".endswith(ends)]


def values_by_pattern(pattern: Mapping[str, Any] | None, modules: Iterable[str], default: Any) -> dict[str, Any]:
    """The value of each module: that of the first pattern that fits the end of its path."""
    match, options = patterns_from_a_file(), list((pattern or {}).items())
    return {m: next((v for p, v in options if match(rf"(.*\.)?({p})", m)), default) for m in modules}


_ODD = regex.compile(r"\(\?(?![:=!]|i\))|\(\*|\{(?!\d{0,3}(,\d{0,3})?\})")  # recursion, fuzzy matching, look-behind


def patterns_from_a_file(seconds: float = 2.0) -> Callable[[str, str], Any]:
    """A `fullmatch(pattern, name)` for regular expressions from strangers; all its calls share this CPU time.

    `(a|a)*[bc]` tries 2^30 ways on thirty letters a, and Python's `re` cannot be stopped; the regex package can. It
    writes out counted repeats before its clock starts, so their product is limited.
    Raises: BadValue for a pattern that is invalid, is larger than a list of modules needs, or takes too long.
    """

    def fullmatch(pattern: str, name: str) -> Any:
        nonlocal seconds
        small = isinstance(pattern, str) and len(pattern) <= 2000 and not _ODD.search(pattern)
        if not small or len(pattern) * math.prod(int(n) or 1 for n in regex.findall(r"(\d+),?\}", pattern)) > 50_000:
            raise BadValue(f"{str(pattern)[:60]!r} is not a pattern for module names: name the modules one by one")
        start = process_time()
        try:
            if seconds <= 0:
                raise TimeoutError
            return regex.fullmatch(pattern, name, timeout=seconds)
        except TimeoutError as error:
            raise BadValue(f"the pattern {pattern[:60]!r} takes too long: name the modules one by one") from error
        except (regex.error, RecursionError, OverflowError) as error:
            raise BadValue(f"{pattern[:60]!r} is not a pattern: {error}") from error
        finally:
            seconds -= process_time() - start

    return fullmatch

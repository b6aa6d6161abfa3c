"""Which modules a config of PEFT means, and how to name some modules so that PEFT means the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lora_lab.errors import BadValue, NotFound
from lora_lab.layers import is_conv1d
from lora_lab.methods.patterns import Matcher
from lora_lab.methods.targets import ALL_LINEAR, Site, choose


def shortest_names(chosen: Iterable[str], all_modules: Iterable[str], taken: Collection[str] = ()) -> list[str]:
    """The shortest endings that name exactly the chosen modules: ["query", "value"] rather than twelve paths.

    taken   words that would mean something else
    """
    chosen, others = list(chosen), set(all_modules)
    others -= set(chosen)
    return list(dict.fromkeys(_shortest_ending(path, others, taken) for path in chosen))


def _shortest_ending(path: str, others: Iterable[str], taken: Collection[str]) -> str:
    parts = path.split(".")
    for n in range(1, len(parts) + 1):
        ending = ".".join(parts[-n:])
        if ending not in taken and not any(f".{other}".endswith(f".{ending}") for other in others):
            return ending
    return path


def matched(config: Mapping[str, Any], sites: Sequence[Site]) -> list[str]:
    """The modules that PEFT's target_modules mean, by PEFT's own rules.

    Raises: BadValue when there are none; NotFound when they match nothing.
    """
    wanted, excluded = config.get("target_modules"), config.get("exclude_modules")
    if not wanted:
        raise BadValue("target_modules is empty, so the config does not say which layers the adapter belongs to")
    whole = [site for site in sites if site.out_slice is None]
    if wanted == ALL_LINEAR:
        # PEFT's all-linear takes BERT's pooler in, ours leaves it out.
        names = [s.module for s in whole if s in choose([ALL_LINEAR], sites) or s.role == "pooler"]
    else:
        names = fitting(wanted, [s.module for s in whole])
    left_out = set(fitting(excluded, names)) if excluded else ()
    names = _in_layers(config, [name for name in names if name not in left_out])
    if not names:
        raise NotFound(
            f"target_modules {wanted!r} match no layer of this model: is it the base the adapter was made for?"
        )
    return names


def fitting(wanted: str | Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of the names that PEFT's rule means: a pattern for all of the name, or a list of ends. Raises: BadValue."""
    if isinstance(wanted, str):
        matcher = Matcher()
        return [name for name in names if matcher.whole(wanted, name)]
    ends = tuple(f".{end}" for end in wanted)
    return [name for name in names if f".{name}".endswith(ends)]


def _in_layers(config: Mapping[str, Any], names: list[str]) -> list[str]:
    """Those of the names that layers_to_transform lets through: all without it, and any that a target gives in full."""
    full = () if isinstance(config["target_modules"], str) else config["target_modules"]
    layers, patterns = config.get("layers_to_transform"), config.get("layers_pattern") or []
    layers = [layers] if isinstance(layers, int) else layers
    patterns = [patterns] if isinstance(patterns, str) else patterns
    matcher = Matcher()
    return [name for name in names if not layers or name in full or _layer(name, patterns, matcher) in layers]


def _layer(name: str, patterns: Sequence[str], matcher: Matcher) -> int | None:
    """The first number in the path, or that behind the list of layers that a pattern names."""
    if not patterns:
        number = re.search(r"\.(\d+)\.", name)
        return int(number[1]) if number else None
    found = (matcher.last_group(rf"(?:.*?\.)?(?:{pattern})\.(\d+)\..*", name) for pattern in patterns)
    return next((int(number) for number in found if number), None)


def layer_names(model: nn.Module) -> set[str]:
    """The paths of all modules that PEFT could wrap, in a model that may be adapted already."""
    modules = model.named_modules()
    found = [name for name, m in modules if isinstance(m, nn.Linear | nn.Embedding) or is_conv1d(m)]
    return {name.replace(".base_layer", "") for name in found}


def required(config: Mapping[str, Any], key: str) -> Any:
    """What a config says of `key`. Raises BadValue where it says nothing."""
    if key not in config:
        raise BadValue(f"adapter_config.json has no '{key}'")
    return config[key]

"""Which modules a config of PEFT means, and how to name some modules so that PEFT means the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import process_time
from typing import Any

import regex
from torch import nn

from lora_lab.errors import BadValue, NotFound
from lora_lab.layers import is_conv1d
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
        fullmatch = patterns_from_a_file()
        return [name for name in names if fullmatch(wanted, name)]
    ends = tuple(f".{end}" for end in wanted)
    return [name for name in names if f".{name}".endswith(ends)]


def _in_layers(config: Mapping[str, Any], names: list[str]) -> list[str]:
    """Those of the names that layers_to_transform lets through: all without it, and any that a target gives in full."""
    full = () if isinstance(config["target_modules"], str) else config["target_modules"]
    layers, patterns = config.get("layers_to_transform"), config.get("layers_pattern") or []
    layers = [layers] if isinstance(layers, int) else layers
    patterns = [patterns] if isinstance(patterns, str) else patterns
    fullmatch = patterns_from_a_file()
    return [name for name in names if not layers or name in full or _layer(name, patterns, fullmatch) in layers]


def _layer(name: str, patterns: Sequence[str], fullmatch: Callable[[str, str], Any]) -> int | None:
    """The first number in the path, or that behind the list of layers that a pattern names."""
    if not patterns:
        number = re.search(r"\.(\d+)\.", name)
        return int(number[1]) if number else None
    found = (fullmatch(rf"(?:.*?\.)?(?:{pattern})\.(\d+)\..*", name) for pattern in patterns)
    return next((int(match[match.re.groups]) for match in found if match), None)


_ODD = regex.compile(r"\(\?(?![:=!]|i\))|\(\*|\{(?!\d{0,3}(,\d{0,3})?\})")  # recursion, fuzzy matching, look-behind


def patterns_from_a_file(seconds: float = 2.0) -> Callable[[str, str], Any]:
    """A `fullmatch(pattern, name)` for regular expressions of strangers: all its calls share so many seconds of CPU.

    `(a|a)*[bc]` tries 2^30 ways on thirty letters a, and Python's `re` cannot be stopped; the regex package can. It
    writes out counted repeats before its clock starts, so their product is limited.
    Raises: BadValue for a pattern that is not one, is larger than a list of modules needs, or takes too long.
    """

    def fullmatch(pattern: str, name: str) -> Any:
        nonlocal seconds
        small = isinstance(pattern, str) and len(pattern) <= 2000 and not _ODD.search(pattern)
        if not small or len(pattern) * math.prod(int(n) or 1 for n in regex.findall(r"(\d+),?\}", pattern)) > 50_000:
            raise BadValue(f"{str(pattern)[:60]!r} is no pattern for the names of modules: name them one by one")
        start = process_time()
        try:
            if seconds <= 0:
                raise TimeoutError
            return regex.fullmatch(pattern, name, timeout=seconds)
        except TimeoutError as error:
            raise BadValue(f"the pattern {pattern[:60]!r} takes too long: name the modules one by one") from error
        except (regex.error, RecursionError, OverflowError) as error:
            raise BadValue(f"{pattern[:60]!r} is no pattern: {error}") from error
        finally:
            seconds -= process_time() - start

    return fullmatch


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

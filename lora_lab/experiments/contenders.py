"""Parse methods given by name, with the settings that differ from the defaults.

probe,head,lora,lora:rank=4:targets=all-linear,prompt:tokens=10:init=random,full
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from lora_lab.errors import BadValue
from lora_lab.methods import method_from
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA

WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def contenders(given: str | Method | Iterable[str | Method]) -> list[Method]:
    """Make methods from "head,lora:rank=4:targets=q+v", a method, or a list of such strings and methods.

    Items of a list are joined by +: targets=q+k+v.
    Raises: BadValue for an unknown method or setting, no method, or a method named twice.
    """
    given = given.split(",") if isinstance(given, str) else [given] if isinstance(given, Method) else given
    items = [item for item in given if str(item).strip()]
    methods = [_method(item) if isinstance(item, str) else item for item in items]
    if not methods:
        raise BadValue("name at least one method to compare, for example lora,full")
    for method in methods:
        if methods.count(method) > 1:
            raise BadValue(f"{label(method)} is named twice: name each method once, or with different settings")
    return methods


def label(method: Method) -> str:
    """Return a short name that is unique to a method's settings: "LoRA r8 q,v", "prompt tokens 10"."""
    settings = {f.name: (getattr(method, f.name), f.default) for f in fields(method)}  # type: ignore[arg-type]
    changed = {name: value for name, (value, default) in settings.items() if value != default}
    name: str = method.name
    if isinstance(method, LoRA):
        name = f"LoRA r{method.rank} {','.join(method.targets)}"
        changed = {k: v for k, v in changed.items() if k not in ("rank", "targets")}
    return " ".join([name, *(f"{k} {_text(v)}" for k, v in changed.items())])


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _method(text: str) -> Method:
    """Parse one method, such as "prompt:tokens=10:init=random"."""
    name, *options = (part.strip() for part in text.split(":"))
    if name == "qlora":  # LoRA on all linear layers by default
        has_targets = any(option.startswith("targets") for option in options)
        lora = ":".join(["lora", *options, *([] if has_targets else ["targets=all-linear"])])
        raise BadValue(f"a comparison uses one dtype for all frozen bases: write {lora} and --dtype nf4")
    settings: dict[str, Any] = {}
    for setting in options:
        option, equals, value = map(str.strip, setting.partition("="))
        if not (option and equals and value):
            raise BadValue(f"a setting of {name} is option=value, as in lora:rank=4:targets=q+v, not '{setting}'")
        if option == "name":
            raise BadValue(f"a method's name comes first, as in lora:rank=4, not as in '{text.strip()}'")
        if option in settings:
            raise BadValue(f"'{text.strip()}' sets {option} twice: set it once")
        settings[option] = _value(value)
    return method_from({"name": name, **settings})


def _value(text: str) -> Any:
    """Parse a number, true, false, none, or items joined by +."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return WORDS.get(text.lower(), text.replace("+", ","))

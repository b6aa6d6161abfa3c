"""Parse methods by name, with settings that differ from the defaults.

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


def contenders(given: str | Iterable[str | Method]) -> list[Method]:
    """Make methods from "head,lora:rank=4:targets=q+v", or from a list of such words and methods.

    Items of a list are joined by +: targets=q+k+v.
    Raises: BadValue for an unknown method or setting, no method, or one that is named twice.
    """
    words = given.split(",") if isinstance(given, str) else given
    found = [_method(one) if isinstance(one, str) else one for one in words if not isinstance(one, str) or one.strip()]
    if not found:
        raise BadValue("name at least one method to compare, for example lora,full")
    for one in found:
        if found.count(one) > 1:
            raise BadValue(f"{label(one)} is named twice: name each method once, or with different settings")
    return found


def label(method: Method) -> str:
    """Return a short name that is unique for a method's settings: "LoRA r8 q,v", "prompt tokens 10"."""
    settings = {f.name: (getattr(method, f.name), f.default) for f in fields(method)}  # type: ignore[arg-type]
    changed = {name: value for name, (value, usual) in settings.items() if value != usual}
    name: str = method.name
    if isinstance(method, LoRA):
        name = f"LoRA r{method.rank} {','.join(method.targets)}"
        changed = {k: v for k, v in changed.items() if k not in ("rank", "targets")}
    return " ".join([name, *(f"{k} {_text(v)}" for k, v in changed.items())])


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _method(words: str) -> Method:
    """Parse one method, such as "prompt:tokens=10:init=random"."""
    name, *options = (part.strip() for part in words.split(":"))
    if name == "qlora":  # LoRA on all linear layers by default
        told = any(option.startswith("targets") for option in options)
        lora = ":".join(["lora", *options, *([] if told else ["targets=all-linear"])])
        raise BadValue(f"a comparison uses one dtype for all frozen bases: write {lora} and --dtype nf4")
    settings: dict[str, Any] = {}
    for words_of_one in options:
        option, equals, value = map(str.strip, words_of_one.partition("="))
        if not (option and equals and value):
            raise BadValue(f"a setting of {name} is option=value, as in lora:rank=4:targets=q+v, not '{words_of_one}'")
        if option == "name":
            raise BadValue(f"a method's name comes first, as in lora:rank=4, not as in '{words.strip()}'")
        if option in settings:
            raise BadValue(f"'{words.strip()}' gives {option} twice: give it once")
        settings[option] = _value(value)
    return method_from({"name": name, **settings})


def _value(text: str) -> Any:
    """Parse a number, true, false, none, or words joined by +."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return WORDS.get(text.lower(), text.replace("+", ","))

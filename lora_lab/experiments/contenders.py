"""Methods by name, with settings where they differ from the method's own.

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
    """Methods from "head,lora:rank=4:targets=q+v", or from such words and methods in a list.

    A list has + between its parts: targets=q+k+v.
    Raises: BadValue for an unknown method or setting, for none at all, and for one that is named twice.
    """
    words = given.split(",") if isinstance(given, str) else given
    found = [_method(one) if isinstance(one, str) else one for one in words if not isinstance(one, str) or one.strip()]
    if not found:
        raise BadValue("name at least one method to compare, for example lora,full")
    for one in found:
        if found.count(one) > 1:
            raise BadValue(f"{label(one)} is named twice: name each method once, or with other settings")
    return found


def label(method: Method) -> str:
    """A method in a few words, different for different settings: "LoRA r8 q,v", "prompt tokens 10"."""
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
    """One method from "prompt:tokens=10:init=random"."""
    name, *options = (part.strip() for part in words.split(":"))
    if name == "qlora":  # LoRA on all linear layers unless told otherwise
        told = any(option.startswith("targets") for option in options)
        lora = ":".join(["lora", *options, *([] if told else ["targets=all-linear"])])
        raise BadValue(f"a comparison has one dtype for all frozen bases: write {lora} and --dtype nf4")
    settings: dict[str, Any] = {}
    for words_of_one in options:
        option, equals, value = map(str.strip, words_of_one.partition("="))
        if not (option and equals and value):
            raise BadValue(f"a setting of {name} is option=value, as in lora:rank=4:targets=q+v, not '{words_of_one}'")
        if option == "name":
            raise BadValue(f"a method's name stands first, as in lora:rank=4, not behind it as in '{words.strip()}'")
        if option in settings:
            raise BadValue(f"'{words.strip()}' gives {option} twice: which of them?")
        settings[option] = _value(value)
    return method_from({"name": name, **settings})


def _value(text: str) -> Any:
    """A whole number, a number, true, false, none, or words with + between."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return WORDS.get(text.lower(), text.replace("+", ","))

"""What is trained: a method attaches itself to a model and reports every layer it touched.

A new method is one file in this folder, named below so that it registers itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from lora_lab.errors import BadValue, nearest
from lora_lab.methods.base import REGISTRY, Method, register

__all__ = ["REGISTRY", "Method", "method_class", "method_from", "register"]

# Each registers what it holds.
for _name in ("lora", "full", "probe", "soft", "bitfit", "bottleneck", "ia3", "shared"):
    import_module(f"{__name__}.{_name}")


def method_class(name: str) -> type[Method]:
    """The class behind a method's name, as the command line writes it. Raises BadValue naming those there are."""
    if name not in REGISTRY:
        raise BadValue(f"unknown method '{name}'; known: {nearest(name, REGISTRY)}")
    return REGISTRY[name]


def method_from(settings: Mapping[str, Any]) -> Method:
    """A method from the plain mapping that a recipe or an adapter file holds: {"name": "lora", "rank": 8, ...}.

    Raises: BadValue for a method or an option that there is not, or an impossible value.
    """
    options = dict(settings)
    cls = method_class(str(options.pop("name", "")))
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for option, value in list(options.items()):
        if option in cls.retired and value == cls.retired[option]:
            del options[option]
        elif option not in known:
            has = f"nearest: {nearest(option, known)}" if known else "it has none"
            raise BadValue(f"{cls.name} has no option '{option}'; {has}")
    return cls(**options)  # type: ignore[call-arg]  # each has its own

"""What is trained: a method attaches itself to a model and reports every layer it touched.

A new method is one file in this folder and one line in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lora_lab.errors import BadValue, nearest
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA

REGISTRY: dict[str, type[Method]] = {"lora": LoRA}


def method_class(name: str) -> type[Method]:
    """The class behind a method's name, as the command line writes it. Raises BadValue naming those there are."""
    if name not in REGISTRY:
        raise BadValue(f"unknown method '{name}'; known: {nearest(name, REGISTRY)}")
    return REGISTRY[name]


def method_from(settings: Mapping[str, Any]) -> Method:
    """A method from the plain mapping that a recipe or an adapter file holds: {"name": "lora", "rank": 8, ...}."""
    options = dict(settings)
    cls = method_class(str(options.pop("name", "")))
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise BadValue(f"{cls.name} has no option '{option}'; nearest: {nearest(option, known)}")
    return cls(**options)

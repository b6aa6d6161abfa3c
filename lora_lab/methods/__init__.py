"""Fine-tuning methods. To add a method, create a file in this folder and add the file's name to the list below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

from lora_lab.errors import BadValue, nearest
from lora_lab.methods.base import REGISTRY, Method, register

__all__ = ["REGISTRY", "Method", "method_from", "register"]

for _name in ("lora", "full", "soft", "bitfit", "bottleneck", "ia3", "shared"):
    import_module(f"{__name__}.{_name}")


def method_from(settings: Mapping[str, Any]) -> Method:
    """Create a method from the settings in a recipe or adapter file, such as {"name": "lora", "rank": 8}.

    Raises: BadValue for an unknown method or option, or an invalid value.
    """
    name = str(settings.get("name", ""))
    if not (cls := REGISTRY.get(name)):
        raise BadValue(f"unknown method '{name}'; known: {nearest(name, REGISTRY)}")
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    options = {k: v for k, v in settings.items() if k != "name" and (k, v) not in cls.retired.items()}
    for option in options:
        if option not in names:
            hint = f"nearest: {nearest(option, names)}" if names else "it has no options"
            raise BadValue(f"{cls.name} has no option '{option}'; {hint}")
    return cls(**options)  # type: ignore[call-arg]  # options differ by method

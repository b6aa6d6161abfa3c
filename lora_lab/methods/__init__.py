"""What is trained: a method attaches itself to a model and reports every layer it touched.

A new method is one file in this folder and one line in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lora_lab.accounting.parameters import Counting
from lora_lab.errors import BadValue, nearest
from lora_lab.methods.base import Method
from lora_lab.methods.bitfit import BitFit
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning, HeadOnly
from lora_lab.methods.ia3 import IA3
from lora_lab.methods.lora import LoRA
from lora_lab.methods.prefix import PrefixTuning
from lora_lab.methods.prompt import PromptTuning

REGISTRY: dict[str, type[Method]] = {"lora": LoRA}  # what can be trained

# What can be counted from an architecture.
COUNTED: dict[str, type[Any]] = {
    cls.name: cls for cls in (LoRA, FullFineTuning, HeadOnly, PromptTuning, PrefixTuning, BitFit, Bottleneck, IA3)
}


def method_class(name: str) -> type[Method]:
    """The class behind a method's name, as the command line writes it. Raises BadValue naming those there are."""
    if name not in REGISTRY:
        raise BadValue(f"unknown method '{name}'; known: {nearest(name, REGISTRY)}")
    return REGISTRY[name]


def method_from(settings: Mapping[str, Any]) -> Method:
    """A method from the plain mapping that a recipe or an adapter file holds: {"name": "lora", "rank": 8, ...}."""
    options = dict(settings)
    return _made(method_class(str(options.pop("name", ""))), options)


def counted_from(settings: Mapping[str, Any]) -> Counting:
    """A method to count with from the same mapping, also one that cannot be trained yet. Raises: as `method_from`."""
    options = dict(settings)
    name = str(options.pop("name", ""))
    if name not in COUNTED:
        raise BadValue(f"unknown method '{name}'; known: {nearest(name, [*COUNTED, 'qlora'])}")
    return _made(COUNTED[name], options)


def _made(cls: type[Any], options: Mapping[str, Any]) -> Any:
    known = [f.name for f in fields(cls)]
    for option in options:
        if option not in known:
            has = f"nearest: {nearest(option, known)}" if known else "it has none"
            raise BadValue(f"{cls.name} has no option '{option}'; {has}")
    return cls(**options)

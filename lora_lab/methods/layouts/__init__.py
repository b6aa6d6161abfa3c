"""How each method's adapters lie in files: in PEFT's layout where PEFT has the method, else in our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_lab.errors import BadValue
from lora_lab.methods.base import Method
from lora_lab.methods.layouts.base import Layout
from lora_lab.methods.layouts.ia3 import IA3Layout
from lora_lab.methods.layouts.lora import LoRALayout
from lora_lab.methods.layouts.own import OwnLayout
from lora_lab.methods.layouts.shared import LoRAXSLayout, TinyLoRALayout, VeRALayout
from lora_lab.methods.layouts.soft import SoftLayout

__all__ = ["LAYOUTS", "OWN", "Layout", "layout_for", "layout_of"]

OWN = OwnLayout()
# By the method's name; the others are OWN's.
LAYOUTS: dict[str, Layout] = {
    "lora": LoRALayout(),
    "ia3": IA3Layout(),
    "vera": VeRALayout(),
    "tinylora": TinyLoRALayout(),
    "lora-xs": LoRAXSLayout(),
    **dict.fromkeys(("prompt", "ptuning", "prefix"), SoftLayout()),
}


def layout_of(method: Method) -> Layout:
    """The layout of a method's files."""
    return LAYOUTS.get(method.name, OWN)


def layout_for(config: Mapping[str, Any]) -> Layout:
    """The layout that reads a config of PEFT's. Raises: BadValue where none does."""
    kind = config.get("peft_type")
    for layout in (*LAYOUTS.values(), OWN):
        if kind in layout.peft_types:
            return layout
    known = ", ".join(dict.fromkeys(t for layout in LAYOUTS.values() for t in layout.peft_types))
    raise BadValue(f"peft_type is {kind!r}; only adapters of these kinds can be loaded: {known}")

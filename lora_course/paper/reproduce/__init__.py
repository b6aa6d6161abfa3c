"""Reproduce the paper's tables and figures on a laptop: `item("table6")` is one, `run.reproduce` runs them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from lora_course.paper.reproduce.base import Item, described
from lora_lab.errors import NotFound, nearest


def names() -> list[str]:
    """Return the names of all items, in running order."""
    return list(described())


def item(name: str, **changes: Any) -> Item:
    """Return an item by name; `changes` override its description. Raises: NotFound with the nearest name."""
    if name not in described():
        raise NotFound(f"there is no item '{name}' to reproduce; nearest: {nearest(name, names())}")
    module, _, kind = described()[name]["kind"].partition(".")
    result: Item = getattr(import_module(f"{__name__}.{module}"), kind)(name, **changes)
    return result


def items(wanted: Iterable[str] = ()) -> list[Item]:
    """Return the named items without duplicates; all items by default. Raises: see `item`."""
    return [item(name) for name in dict.fromkeys(wanted or names())]

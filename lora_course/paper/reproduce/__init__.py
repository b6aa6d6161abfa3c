"""The paper's tables and figures, run again on a laptop: `item("table6")` is one, `run.reproduce` runs them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from lora_course.paper.reproduce.base import Item, described
from lora_lab.errors import NotFound, nearest


def names() -> list[str]:
    """All items, in the order in which they run."""
    return list(described())


def item(name: str, **changes: Any) -> Item:
    """An item by its name; `changes` replace entries of its description. Raises: NotFound with the nearest name."""
    if name not in described():
        raise NotFound(f"nothing called '{name}' can be reproduced; nearest: {nearest(name, names())}")
    module, _, kind = described()[name]["kind"].partition(".")
    found: Item = getattr(import_module(f"{__name__}.{module}"), kind)(name, **changes)
    return found


def items(wanted: Iterable[str] = ()) -> list[Item]:
    """The items of these names, each once; all of them if none is named. Raises: as `item`."""
    return [item(name) for name in dict.fromkeys(wanted or names())]

"""The paper's tables and figures, done again on a laptop. `items()` names them, `run.reproduce` runs them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from lora_course.paper.reproduce.base import Item
from lora_lab.errors import NotFound, nearest

NAMES = (
    "table1", "section4_2", "table2", "table3", "table5", "table6", "table7", "fig3", "fig4", "table16", "table18",
)  # fmt: skip
"""In the order in which they run. Each is a module with an ITEM."""


def item(name: str) -> Item:
    """An item by its name. Raises: NotFound with the nearest right name."""
    if name not in NAMES:
        raise NotFound(f"nothing called '{name}' can be reproduced; nearest: {nearest(name, NAMES)}")
    found: Item = import_module(f"{__name__}.{name}").ITEM
    return found


def items(names: Iterable[str] = ()) -> list[Item]:
    """The items of these names, each once; all of them where none is named. Raises: as `item`."""
    return [item(name) for name in dict.fromkeys(names or NAMES)]

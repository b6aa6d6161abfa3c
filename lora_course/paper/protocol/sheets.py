"""All runs that the lab knows of, to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lora_course.paper.protocol import e2e_sheet, glue_sheet
from lora_course.paper.protocol.given import VARIANTS, PaperRecipe
from lora_lab.errors import BadValue, NotFound, nearest

TABLES = ("table2", "table3")


def recipes(
    table: str, *, variant: str = "paper", model: str | None = None, task: str | None = None, row: str | None = None
) -> list[PaperRecipe]:
    """The recipes of a table, or those of them with this model, task and row.

    Raises: NotFound for a table that has none, and where nothing is left, naming what there is; BadValue for an unknown
    variant.
    """
    if table not in TABLES:
        raise NotFound(f"{table} has no protocol to run here; {' and '.join(TABLES)} have")
    if variant not in VARIANTS:
        raise BadValue(f"variant must be one of {', '.join(VARIANTS)}, not '{variant}'")
    found = list(_all(table, variant))
    for name, wanted in (("model", model), ("task", task), ("row", row)):
        if wanted is not None:
            found = _with(found, name, wanted)
    return found


def _all(table: str, variant: str) -> Iterator[PaperRecipe]:
    if table == "table3":
        return e2e_sheet.recipes(variant)
    return glue_sheet.paper() if variant == "paper" else glue_sheet.repo()


def _with(found: Iterable[PaperRecipe], name: str, wanted: str) -> list[PaperRecipe]:
    there = dict.fromkeys(getattr(recipe, name) for recipe in found)
    if wanted not in there:
        raise NotFound(f"there is no {name} '{wanted}' in this table; nearest: {nearest(wanted, there)}")
    return [recipe for recipe in found if getattr(recipe, name) == wanted]

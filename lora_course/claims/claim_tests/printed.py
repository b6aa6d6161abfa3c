"""Differences of quality that others published, with intervals made from the spread that they print or from counts.

Two means with a spread s over seeds each differ by d +- 1.96 sqrt(2) s: as wide as if one run stood behind each, since
how many did is not said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lora_course.claims.claim_tests.evidence import NORMAL_95, Interval, proportions, published
from lora_course.paper import Cell, Table, table
from lora_lab.errors import NotFound, nearest

SPREADS = {"WikiSQL": 0.5, "MNLI": 0.1, "MNLI-m": 0.1}  # points, as tables 4 to 6 say
ROWS = {  # how table 4 calls our methods, and the row of LoRA that the paper puts first
    "lora": ("LoRA", "4.7M"),
    "full": ("FT", "175,255.8M"),
    "prompt": ("PreEmbed", "3.2M"),
    "prefix": ("PreLayer", "20.2M"),
    "bottleneck": ("AdapterH", "40.1M"),
    "bitfit": ("BitFit", "14.2M"),
}


def printed_in(name: str) -> str:
    """Where the figures of a table of the paper are from, how sure that is, and of how many runs they are."""
    found = table(name)
    return f"{found.source} ({found.standing}; {found.seeds})"


def metamath(a: str, b: str) -> Interval:
    """a - b in PEFT's suite. Raises: NotFound for a method that is not in it."""
    suite = published("metamath")
    for method in (a, b):
        if method not in suite["rows"]:
            raise NotFound(f"the suite has no '{method}'; nearest: {nearest(method, suite['rows'])}")
    return proportions(suite["rows"][a]["solved"], suite["rows"][b]["solved"], suite["questions"])


def methods_on_gpt3(a: str, b: str) -> dict[str, Interval]:
    """a - b on two tasks of table 4. Raises: NotFound for a method that is not in it."""
    for method in (a, b):
        if method not in ROWS:
            raise NotFound(f"table 4 has no '{method}'; nearest: {nearest(method, ROWS)}")
    own, other = (dict(zip(("method", "trainable"), ROWS[method], strict=True)) for method in (a, b))
    return {f"{task} (GPT-3)": _apart(table("table4"), task, own, other) for task in ("WikiSQL", "MNLI-m")}


def places_on_gpt3(place: str) -> dict[str, Interval]:
    """A choice of matrices minus each other one of table 5, by task; {} for a choice that is not in it."""
    weights = ",".join(f"W{role}" for role in place.split("+"))
    found = table("table5")
    if weights not in found.column("weights"):
        return {}
    others = [str(one) for one in found.column("weights") if one != weights]
    return {
        f"{other} on {task}": _apart(found, task, {"weights": weights}, {"weights": other})
        for other in others
        for task in ("WikiSQL", "MNLI")
    }


def ranks_on_gpt3(rank: int) -> dict[str, Interval]:
    """A rank on q and v minus rank 64, by task of table 6; {} for a rank that is not in it."""
    found = table("table6")
    if rank not in found.column("rank") or rank == 64:
        return {}
    own, other = (dict[str, Cell](weights="Wq,Wv", rank=one) for one in (rank, 64))
    return {task: _apart(found, task, own, other) for task in ("WikiSQL", "MNLI")}


def _apart(of: Table, task: str, own: Mapping[str, Cell], other: Mapping[str, Cell]) -> Interval:
    """The difference of two rows, in shares."""
    difference = (float(of.row(**own)[task]) - float(of.row(**other)[task])) / 100  # type: ignore[arg-type]
    half = NORMAL_95 * math.sqrt(2) * SPREADS[task] / 100
    return Interval(difference, difference - half, difference + half, "the figures of every seed")

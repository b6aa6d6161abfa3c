"""Each result as effects on one axis: how far from no effect, in units of the limit that the rule declares.

pairs    difference / margin, with the sign turned so that the paper's direction is to the right
ratios   log(ratio) / log(limit), or value / limit where the limit is 1 or the value isn't a ratio

What an item shows is `shown` in data/paper/reproduce.yaml. Everything is read from result.json, nothing is run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import median
from typing import Any, NamedTuple

from lora_course.paper.reproduce.base import Interval, described

PRINTED = re.compile(r"(?<![-(\w.])(\d+\.?\d*)")  # numbers, except in parentheses or within a name
BOUNDS = {"better": 0.0, "worse": 0.0, "no worse": -1.0, "no better": -1.0, "equal": -1.0}


class Effect(NamedTuple):
    """One row of the forest plot.

    holds   the range that must contain the whole interval; its upper end may be infinite
    paper   the published effects in the same unit; empty where the paper has no comparable number
    """

    item: str
    label: str
    middle: float
    low: float
    high: float
    holds: tuple[float, float]
    paper: tuple[float, ...]
    standing: str


def effects(found: Mapping[str, Any]) -> list[Effect]:
    """The effects of one result, as result.json has it; without those whose values it lacks."""
    made = []
    for label, what in described()[found["item"]]["shown"].items():
        with suppress(KeyError, StopIteration):
            made.append((_of_pair if "pair" in what else _of_rows)(found, label, what))
    return made


def _of_pair(found: Mapping[str, Any], label: str, what: Mapping[str, Any]) -> Effect:
    """`paper`: the rows beside which the paper's figures stand, if not the pair's own."""
    first, second, wanted = described()[found["item"]]["pairs"][what["pair"]]
    verdict, percent = found["verdicts"][what["pair"]], "%" in found["axis"]
    sign = (-1 if wanted in ("worse", "no better") else 1) / verdict["margin"]
    low, middle, high = sorted(sign * verdict[end] for end in ("low", "difference", "high"))
    printed = {row["name"]: row["published"] for row in found["rows"]}
    numbers = zip(*(_numbers(printed.get(name, "")) for name in what.get("paper", (first, second))), strict=True)
    unit = 0.01 if percent else -1  # a lower loss is better
    published = tuple(sign * unit * (a - b) for a, b in numbers)
    holds = (BOUNDS[wanted], 1.0 if wanted == "equal" else math.inf)
    return Effect(found["item"], label, middle, low, high, holds, published, found["standing"])


def _of_rows(found: Mapping[str, Any], label: str, what: Mapping[str, Any]) -> Effect:
    """`row` and `over`: how their names end; `ratio` or `limit`: the declared limit; `inside`: both ways."""
    rows = {row["name"]: row for row in found["rows"]}
    row, over = (_first(rows, what[key]) if key in what else None for key in ("row", "over"))
    assert row is not None

    def scaled(value: float) -> float:
        return math.log(value) / math.log(what["ratio"]) if "ratio" in what else value / what["limit"]

    values = [a / b for a, b in zip(row["yours"], over["yours"], strict=True)] if over else row["yours"]
    if "rounds" in found["sizes"]:
        middle, low, high = Interval.of(values)
    else:  # seeds: all of them, from the least to the most
        middle, low, high = median(values), min(values), max(values)
    low, middle, high = sorted(map(scaled, (low, middle, high)))
    above, below = (_first(rows, name) if name else None for name in what.get("paper", (what["row"], what.get("over"))))
    numbers = [_numbers(one["published"]) if one else (1.0,) for one in (above, below)]
    published = tuple(scaled(a / b) for a, b in zip(*numbers, strict=False))
    holds = (-1.0 if what.get("inside") else 1.0, 1.0 if what.get("inside") else math.inf)
    return Effect(found["item"], label, middle, low, high, holds, published, found["standing"])


def _first(rows: Mapping[str, Any], ending: str) -> Any:
    return rows.get(ending) or next(row for name, row in rows.items() if name.endswith(ending))


def _numbers(printed: str) -> Sequence[float]:
    return tuple(float(number) for number in PRINTED.findall(printed))

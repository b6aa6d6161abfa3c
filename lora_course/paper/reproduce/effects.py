"""Each result as effects on one axis: the distance from no effect, in units of the rule's limit.

pairs    difference / margin, signed so that the paper's direction is to the right
ratios   log(ratio) / log(limit); in doublings where the limit is 1
others   value / limit

`shown` in data/paper/reproduce.yaml lists each item's effects. Everything is read from result.json; nothing is run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import median
from typing import Any, NamedTuple

from lora_course.paper.reproduce.base import Interval, described

PRINTED = re.compile(r"(?<![-(\w.])(\d+\.?\d*)")  # numbers, except in parentheses or names
BOUNDS = {"better": 0.0, "worse": 0.0, "no worse": -1.0, "no better": -1.0, "equal": -1.0}


class Effect(NamedTuple):
    """One row of the forest plot.

    holds   the range that must contain the whole interval; its upper end may be infinite
    paper   the published effects in the same unit; empty if the paper has no comparable number
    open    whether Holm's correction leaves it undecided, wherever the interval lies
    """

    item: str
    label: str
    middle: float
    low: float
    high: float
    holds: tuple[float, float]
    paper: tuple[float, ...]
    standing: str
    open: bool = False


def effects(result: Mapping[str, Any]) -> list[Effect]:
    """Return the effects of one result.json, skipping those whose values it lacks."""
    rows = []
    for label, spec in described()[result["item"]]["shown"].items():
        with suppress(KeyError, StopIteration):
            rows.append((_pair_effect if "pair" in spec else _rows_effect)(result, label, spec))
    return rows


def _pair_effect(result: Mapping[str, Any], label: str, spec: Mapping[str, Any]) -> Effect:
    """`paper`: the rows that have the paper's numbers, if not the pair's own."""
    first, second, wanted = described()[result["item"]]["pairs"][spec["pair"]]
    verdict, percent = result["verdicts"][spec["pair"]], "%" in result["axis"]
    sign = (-1 if wanted in ("worse", "no better") else 1) / verdict["margin"]
    low, middle, high = sorted(sign * verdict[end] for end in ("low", "difference", "high"))
    printed = {row["name"]: row["published"] for row in result["rows"]}
    numbers = zip(*(_numbers(printed.get(name, "")) for name in spec.get("paper", (first, second))), strict=True)
    unit = 0.01 if percent else -1  # a lower loss is better
    published = tuple(sign * unit * (a - b) for a, b in numbers)
    holds = (BOUNDS[wanted], 1.0 if wanted == "equal" else math.inf)
    undecided = verdict["outcome"] == "undecided"
    return Effect(result["item"], label, middle, low, high, holds, published, result["standing"], undecided)


def _rows_effect(result: Mapping[str, Any], label: str, spec: Mapping[str, Any]) -> Effect:
    """`row` and `over`: endings of row names; `ratio` or `limit`: the declared limit; `inside`: in both directions."""
    level = 0.0 if spec.get("ratio") == 1 else 1.0
    rows = {row["name"]: row for row in result["rows"]}
    row, over = (_first(rows, spec[key]) if key in spec else None for key in ("row", "over"))
    assert row is not None

    def scaled(value: float) -> float:
        if "ratio" not in spec:
            return value / spec["limit"]  # type: ignore[no-any-return]
        return math.log2(value) / (math.log2(spec["ratio"]) or 1)

    values = [a / b for a, b in zip(row["yours"], over["yours"], strict=True)] if over else row["yours"]
    if "rounds" in result["sizes"]:
        middle, low, high = Interval.of(values)
    else:  # seeds: the full range
        middle, low, high = median(values), min(values), max(values)
    low, middle, high = sorted(map(scaled, (low, middle, high)))
    above, below = (_first(rows, name) if name else None for name in spec.get("paper", (spec["row"], spec.get("over"))))
    numbers = [_numbers(row["published"]) if row else (1.0,) for row in (above, below)]
    published = tuple(scaled(a / b) for a, b in zip(*numbers, strict=False))
    holds = (-1.0 if spec.get("inside") else level, 1.0 if spec.get("inside") else math.inf)
    return Effect(result["item"], label, middle, low, high, holds, published, result["standing"])


def _first(rows: Mapping[str, Any], ending: str) -> Any:
    return rows.get(ending) or next(row for name, row in rows.items() if name.endswith(ending))


def _numbers(printed: str) -> Sequence[float]:
    return tuple(float(number) for number in PRINTED.findall(printed))

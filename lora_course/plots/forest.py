"""All results of `lora-lab reproduce` in one plot: each effect's interval, in units of its rule's limit.

pairs    difference / margin, signed so that the paper's direction is to the right
ratios   log(ratio) / log(limit); in doublings if the limit is 1
others   value / limit

`shown` in data/paper/reproduce.yaml lists each item's effects. Everything is read from result.json; nothing is run.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import median
from typing import Any, NamedTuple

from lora_course.paper.reproduce import Interval, described
from lora_lab.plots import BLACK, BLUE, GRAY, ORANGE, RED, Picture, new_axes, tidy

MARKS = {"holds": ("o", BLUE), "fails": ("X", RED), "undecided": ("s", BLACK), "not tested": ("o", GRAY)}
EDGE = 40  # end of the axis, in units of the limit
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
PRINTED = re.compile(r"(?<![-(\w.])(\d+\.?\d*)")  # numbers, except in parentheses or names
BOUNDS = {"better": 0.0, "worse": 0.0, "no worse": -1.0, "no better": -1.0, "equal": -1.0}


class Effect(NamedTuple):
    """One row of the forest plot.

    holds   the range that must contain the whole interval; its upper end may be infinite
    paper   the published effects in the same unit; empty if the paper has no comparable number
    open    whether Holm's correction leaves a tested effect undecided, wherever the interval lies
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

    @property
    def outcome(self) -> str:
        """The row's own outcome: if a finding fails, one of its rows may hold or be undecided."""
        inside = self.standing != "not tested" and self.holds[0] <= self.low and self.high <= self.holds[1]
        return "undecided" if self.open else "holds" if inside else self.standing


def effects(result: Mapping[str, Any]) -> list[Effect]:
    """Return the effects of one result.json, skipping effects whose values are missing."""
    rows = []
    for label, spec in described()[result["item"]]["shown"].items():
        with suppress(KeyError, StopIteration):
            rows.append((_pair_effect if "pair" in spec else _rows_effect)(result, label, spec))
    return rows


def _pair_effect(result: Mapping[str, Any], label: str, spec: Mapping[str, Any]) -> Effect:
    """In `spec`, `paper` names the rows that have the paper's numbers, if these are not the pair's own rows."""
    first, second, wanted = described()[result["item"]]["pairs"][spec["pair"]]
    verdict, percent = result["verdicts"][spec["pair"]], "%" in result["axis"]
    sign = (-1 if wanted in ("worse", "no better") else 1) / verdict["margin"]
    low, middle, high = sorted(sign * verdict[end] for end in ("low", "difference", "high"))
    printed = {row["name"]: row["published"] for row in result["rows"]}
    numbers = zip(*(_numbers(printed.get(name, "")) for name in spec.get("paper", (first, second))), strict=True)
    unit = 0.01 if percent else -1  # a lower loss is better
    published = tuple(sign * unit * (a - b) for a, b in numbers)
    holds = (BOUNDS[wanted], 1.0 if wanted == "equal" else math.inf)
    undecided = verdict["outcome"] == "undecided" and result["standing"] != "not tested"
    return Effect(result["item"], label, middle, low, high, holds, published, result["standing"], undecided)


def _rows_effect(result: Mapping[str, Any], label: str, spec: Mapping[str, Any]) -> Effect:
    """In `spec`, `row` and `over` are ends of row names; `ratio` or `limit` is the limit, two-sided if `inside`."""
    rows = {row["name"]: row for row in result["rows"]}
    row, over = (_first(rows, spec[key]) if key in spec else None for key in ("row", "over"))
    assert row is not None

    def scaled(value: float) -> float:
        if "ratio" not in spec:
            return value / spec["limit"]  # type: ignore[no-any-return]
        return math.log2(value) / (math.log2(spec["ratio"]) or 1)

    values = [a / b for a, b in zip(row["yours"], over["yours"], strict=True)] if over else row["yours"]
    full_range = (median(values), min(values), max(values))  # of seeds
    low, middle, high = sorted(map(scaled, Interval.of(values) if "rounds" in result["sizes"] else full_range))
    above, below = (_first(rows, name) if name else None for name in spec.get("paper", (spec["row"], spec.get("over"))))
    numbers = [_numbers(row["published"]) if row else (1.0,) for row in (above, below)]
    published = tuple(scaled(a / b) for a, b in zip(*numbers, strict=False))
    holds = (-1.0 if spec.get("inside") else float(spec.get("ratio") != 1), 1.0 if spec.get("inside") else math.inf)
    return Effect(result["item"], label, middle, low, high, holds, published, result["standing"])


def _first(rows: Mapping[str, Any], ending: str) -> Any:
    return rows.get(ending) or next(row for name, row in rows.items() if name.endswith(ending))


def _numbers(printed: str) -> Sequence[float]:
    return tuple(float(number) for number in PRINTED.findall(printed))


def forest(results: Iterable[Mapping[str, Any]]) -> Picture:
    """Draw one row per effect, by outcome; effects hold in the blue area; diamonds show the paper's numbers.

    results   as printed by `lora-lab reproduce --json`; those without rows or with an error are left out
    """
    complete = [result for result in results if result["rows"] and not result["error"]]
    complete.sort(key=lambda result: list(MARKS).index(result["standing"]))
    rows = [effect for result in complete for effect in effects(result)]
    picture, axes = new_axes(8.4, 1.6 + 0.27 * len(rows))
    axes.set_xscale("symlog", linthresh=1, linscale=1.2)
    axes.set_xlim(-EDGE, EDGE)
    axes.set_ylim(len(rows) - 0.4, -0.9)
    for y, row in enumerate(rows):
        _draw(axes, y, row, first=y == 0 or rows[y - 1].item != row.item)
    axes.plot([0, 0], [-0.45, len(rows)], color=GRAY, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
    axes.set_xticks([-10, -1, 0, 1, 10], ["−10", "−1", "no effect", "1", "10"], fontsize=8)
    label = "effect, in units of the rule's limit (logarithmic beyond ±1); further right is in the paper's favor,\n"
    label += "except where the blue ends on both sides; black in the blue: undecided, as several pairs are compared"
    axes.set_xlabel(label, fontsize=8)
    axes.text(EDGE, -0.75, "diamonds: the paper, each of its tasks   ", ha="right", fontsize=8, color=ORANGE)
    axes.text(-EDGE, -0.75, " blue: the whole interval must lie here to hold", fontsize=8, color=BLUE)
    picture.suptitle(headline(complete), fontsize=11, fontweight="bold")
    tidy(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    picture.alt = f"{headline(complete)} " + " ".join(map(_describe, rows))
    return picture


def headline(found: Iterable[Mapping[str, Any]]) -> str:
    """Return the headline: how many of the items hold, fail, are undecided, or were never tested."""
    count = Counter(result["standing"] for result in found)
    verbs = {"holds": "hold", "fails": "fail", "undecided": "undecided", "not tested": "never tested"}
    parts = [f"{NUMBERS[count[s]]} {verb}" for s, verb in verbs.items() if count[s] or s != "not tested"]
    return f"{NUMBERS[count.total()].capitalize()} findings on small models: {', '.join(parts)}."


def named(item: str) -> str:
    """Return an item's name in prose, such as "Table 1", "Figure 3" or "Section 4.2"."""
    kind = item.rstrip("0123456789_")
    return f"{'Figure' if kind == 'fig' else kind.capitalize()} {item[len(kind) :].replace('_', '.')}"


def _draw(axes: Any, y: int, row: Effect, first: bool) -> None:
    tested, (mark, color) = row.standing != "not tested", MARKS[row.outcome]
    start, end = row.holds[0], min(EDGE, row.holds[1])
    axes.barh(y, end - start, 0.8, left=start, color=BLUE, alpha=0.13 if tested else 0.05, zorder=1)
    axes.plot([row.low, row.high], [y, y], color=color, linewidth=2, alpha=1 if tested else 0.6, zorder=3)
    axes.plot(row.middle, y, mark, color=color, mfc=color if tested else "white", markersize=6, zorder=4)
    axes.plot(row.paper, [y] * len(row.paper), "d", color=ORANGE, mfc="white", markersize=6, zorder=5)
    if first:
        color = MARKS[row.standing][1]
        style = {"transform": axes.get_yaxis_transform(), "fontweight": "bold" if tested else "normal"}
        axes.text(1.01, y, f"{named(row.item)}: {row.standing}", color=color, va="center", fontsize=8, **style)
        axes.axhline(y - 0.5, color="#dddddd", linewidth=0.6, zorder=0)


def _describe(row: Effect) -> str:
    upper = " or more" if math.isinf(row.holds[1]) else f" to {row.holds[1]:g}"
    return (f"{named(row.item)}, {row.label}: {row.middle:.2g} limits ({row.low:.2g} to {row.high:.2g}), needs "
            f"{row.holds[0]:g}{upper}: {row.outcome}.")  # fmt: skip

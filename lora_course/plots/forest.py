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
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
    found   the measured effect, with its unit, and the limit
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
    found: str
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
    margin, scale, form = verdict["margin"], 100 if percent else 1, ".1f" if percent else ".3f"
    direction = -1 if wanted in ("worse", "no better") else 1
    sign = direction / margin
    measured = f"{scale * direction * verdict['difference']:+{form}}".replace("-", "−")
    limit = "fails below −" if wanted in ("better", "worse") else "limit "
    found = f"{measured} {'points' if percent else 'nats'} ({limit}{scale * margin:g})"
    low, middle, high = sorted(sign * verdict[end] for end in ("low", "difference", "high"))
    printed = {row["name"]: row["published"] for row in result["rows"]}
    numbers = zip(*(_numbers(printed.get(name, "")) for name in spec.get("paper", (first, second))), strict=True)
    unit = 0.01 if percent else -1  # a lower loss is better
    published = tuple(sign * unit * (a - b) for a, b in numbers)
    holds = (BOUNDS[wanted], 1.0 if wanted == "equal" else math.inf)
    undecided = verdict["outcome"] == "undecided" and result["standing"] != "not tested"
    return Effect(result["item"], label, middle, low, high, holds, published, result["standing"], found, undecided)


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
    seeds = (fmean(values), min(values), max(values))
    estimate = Interval.of(values) if "rounds" in result["sizes"] else seeds
    low, middle, high = sorted(map(scaled, estimate))
    above, below = (_first(rows, name) if name else None for name in spec.get("paper", (spec["row"], spec.get("over"))))
    numbers = [_numbers(row["published"]) if row else (1.0,) for row in (above, below)]
    published = tuple(scaled(a / b) for a, b in zip(*numbers, strict=False))
    holds = (-1.0 if spec.get("inside") else float(spec.get("ratio") != 1), 1.0 if spec.get("inside") else math.inf)
    measured = f"{estimate[0]:{'.2f' if 0.1 <= estimate[0] < 10 else '.2g'}}"
    found = f"{'× ' if 'ratio' in spec else ''}{measured} (limit {spec.get('ratio', spec.get('limit'))})"
    return Effect(result["item"], label, middle, low, high, holds, published, result["standing"], found)


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
    heads = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1].item != row.item]
    places = [i + sum(head <= i for head in heads) for i in range(len(rows))]  # below its item's heading
    bottom = len(rows) + len(heads)
    picture, axes = new_axes(8.4, 1.7 + 0.25 * bottom)
    axes.set_xscale("symlog", linthresh=1, linscale=1.2)
    axes.set_xlim(-EDGE, EDGE)
    axes.set_ylim(bottom - 0.4, -0.6)
    for y, row in zip(places, rows, strict=True):
        _draw(axes, y, row)
    for i in heads:
        _head(axes, places[i] - 1, rows[i])
    axes.plot([0, 0], [-0.45, bottom], color=GRAY, linewidth=0.8)
    axes.set_yticks(places, [row.label for row in rows], fontsize=9.5)
    axes.set_xticks([-10, -1, 0, 1, 10], ["−10", "−1", "no effect", "1", "10"], fontsize=9.5)
    label = "effect / the rule's limit; ×: log effect / log limit, or in doublings if the limit is 1\n"
    label += "Further right is in the paper's favor, except where the blue ends on both sides.\n"
    label += "Black in the blue: undecided, as several pairs are compared (Holm)."
    axes.set_xlabel(label, fontsize=9.5)
    axes.text(1.01, 0, "measured", transform=axes.get_yaxis_transform(), va="center", fontsize=9.5, color=GRAY)
    picture.suptitle(headline(complete), fontsize=12, fontweight="bold")
    options = {"fontsize": 9.5, "frameon": False, "handletextpad": 0.4, "columnspacing": 1.4}
    picture.legend(handles=_legend(), loc="outside lower center", ncols=5, **options)
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


def _draw(axes: Any, y: int, row: Effect) -> None:
    tested, (mark, color) = row.standing != "not tested", MARKS[row.outcome]
    start, end = row.holds[0], min(EDGE, row.holds[1])
    axes.barh(y, end - start, 0.8, left=start, color=BLUE, alpha=0.13 if tested else 0.05, zorder=1)
    axes.plot([row.low, row.high], [y, y], color=color, linewidth=2, alpha=1 if tested else 0.6, zorder=3)
    axes.plot(row.middle, y, mark, color=color, mfc=color if tested else "white", markersize=7, zorder=4)
    axes.plot(row.paper, [y] * len(row.paper), "d", color=ORANGE, mfc="white", markersize=6, zorder=5)
    axes.text(1.01, y, row.found, color=color, va="center", fontsize=9.5, transform=axes.get_yaxis_transform())


def _head(axes: Any, y: int, row: Effect) -> None:
    """Name the item and its outcome in a line above its effects."""
    words, weight = f"{named(row.item)}: {row.standing}  ", "normal" if row.standing == "not tested" else "bold"
    style = {"color": MARKS[row.standing][1], "fontsize": 9.5, "fontweight": weight}
    axes.text(0, y, words, ha="right", va="center", transform=axes.get_yaxis_transform(), **style)
    axes.axhline(y - 0.45, color="#dddddd", linewidth=0.6, zorder=0)


def _legend() -> list[Line2D | Patch]:
    marks = {word: MARKS[word] for word in ("holds", "undecided", "fails")}
    handles = [Line2D([], [], marker=mark, color=color, label=word) for word, (mark, color) in marks.items()]
    paper = Line2D([], [], marker="d", color=ORANGE, mfc="white", linewidth=0, label="the paper, each task")
    return [*handles, paper, Patch(color=BLUE, alpha=0.13, label="the whole line must lie here")]


def _describe(row: Effect) -> str:
    upper = " or more" if math.isinf(row.holds[1]) else f" to {row.holds[1]:g}"
    return (f"{named(row.item)}, {row.label}: {row.middle:.2g} limits ({row.low:.2g} to {row.high:.2g}), needs "
            f"{row.holds[0]:g}{upper}: {row.outcome}. Measured: {row.found}.")  # fmt: skip

"""All results of `lora-lab reproduce` in one picture: each effect is a row of text with an interval on its own scale.

pairs    difference / margin, signed so that the paper's direction is to the right
ratios   log(ratio) / log(limit), or log2(ratio) if the limit is 1
others   value / limit

`shown` in data/paper/reproduce.yaml lists each item's effects. Everything is read from result.json; nothing is run.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any, NamedTuple

from lora_course.paper.reproduce import Interval, by_verdict, described
from lora_lab.plots import BLACK, BLUE, GRAY, ORANGE, RED, Picture, new_axes

MARKS = {"holds": ("✓", BLUE), "fails": ("✗", RED), "undecided": ("?", BLACK), "not tested": ("–", GRAY)}
COLUMNS = {0: "finding", 34: "the paper ◇", 46: "ours ●\n(95% or range)", 62.5: "needed: the whole\nline in the blue"}
START, END, VERDICT = 75, 88, 89.5  # positions of the drawn intervals and of the verdicts
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
PRINTED = re.compile(r"(?<![-(\w.])(\d+\.?\d*)")  # numbers, except in parentheses or names
BOUNDS = {"better": 0.0, "worse": 0.0, "no worse": -1.0, "no better": -1.0, "equal": -1.0}


class Effect(NamedTuple):
    """One row of the forest plot.

    holds   The range that must contain the whole interval; its upper end may be infinite.
    paper   The published effects in the same unit; empty if the paper has no comparable number.
    say     Formats a value of this row as it was measured, with its sign.
    over    The word before the limit: "above", or "below" if smaller measurements are further to the right.
    quote   The paper's own words, if these are not a number.
    open    Whether the rule leaves a tested pair undecided, wherever the interval lies.
    """

    item: str
    label: str
    middle: float
    low: float
    high: float
    holds: tuple[float, float]
    paper: tuple[float, ...]
    standing: str
    say: Callable[[float], str]
    unit: str = ""
    over: str = "above"
    quote: str = ""
    open: bool = False

    @property
    def inside(self) -> bool:
        return self.standing != "not tested" and self.holds[0] <= self.low and self.high <= self.holds[1]

    @property
    def outcome(self) -> str:
        """The row's own outcome: even if a finding fails, one of its rows may hold or be undecided."""
        return "undecided" if self.open else "holds" if self.inside else self.standing

    @property
    def texts(self) -> tuple[str, str, str]:
        """The paper's numbers, the measurement and its interval, and the range that must contain the interval."""
        interval = f"\n({self.say(self.low)} to {self.say(self.high)})".replace("×", "")
        needed = f"{self.over} {self.say(self.holds[0])}"
        if math.isfinite(self.holds[1]):
            needed = " to\n".join(map(self.say, self.holds))
        paper = self.quote or ", ".join(map(self.say, self.paper)) or "no number"
        return paper, self.say(self.middle) + self.unit + interval * (self.low < self.high), needed


def effects(result: Mapping[str, Any], short: bool = False) -> list[Effect]:
    """Return the effects of one result.json that have values; if `short`, only the effect that decides the finding."""
    rows = list[Effect]()
    for label, spec in described()[result["item"]]["shown"].items():
        with suppress(KeyError, StopIteration):
            rows.append((_pair_effect if "pair" in spec else _rows_effect)(result, label, spec))
    return [row for row in rows if row.inside == (row.standing == "holds")][:1] if short else rows


def _pair_effect(result: Mapping[str, Any], label: str, spec: Mapping[str, Any]) -> Effect:
    """In `spec`, `paper` lists the rows with the paper's numbers, if these rows are not the pair's own."""
    first, second, wanted = described()[result["item"]]["pairs"][spec["pair"]]
    verdict, percent = result["verdicts"][spec["pair"]], "%" in result["axis"]
    margin, form = verdict["margin"], ".1f" if percent else ".3f"
    sign = (-1 if wanted in ("worse", "no better") else 1) / margin

    def say(value: float) -> str:
        return f"{value * margin * (100 if percent else 1):+{form}}".replace("-", "−") if abs(value) > 1e-9 else "0"

    low, middle, high = sorted(sign * verdict[end] for end in ("low", "difference", "high"))
    printed = {row["name"]: row["published"] for row in result["rows"]}
    numbers = zip(*(_numbers(printed.get(name, "")) for name in spec.get("paper", (first, second))), strict=True)
    unit = 0.01 if percent else -1  # a lower loss is better
    published = tuple(sign * unit * (a - b) for a, b in numbers)
    holds = (BOUNDS[wanted], 1.0 if wanted == "equal" else math.inf)
    undecided = by_verdict(verdict, wanted).standing == "undecided" and result["standing"] != "not tested"
    row = (result["item"], label, middle, low, high, holds, published, result["standing"], say)
    return Effect(*row, unit=" points" if percent else " nats", open=undecided)


def _rows_effect(result: Mapping[str, Any], label: str, spec: Mapping[str, Any]) -> Effect:
    """In `spec`, `row` and `over` are endings of row names. `ratio` or `limit` is two-sided if `inside` is set."""
    rows = {row["name"]: row for row in result["rows"]}
    row, over = (_first(rows, spec[key]) if key in spec else None for key in ("row", "over"))
    assert row is not None
    doublings = math.log2(spec.get("ratio", 2)) or 1

    def scaled(value: float) -> float:
        return math.log2(value) / doublings if "ratio" in spec else value / spec["limit"]  # type: ignore[no-any-return]

    def say(value: float) -> str:
        number = 2 ** (value * doublings) if "ratio" in spec else value * spec["limit"]
        return f"{'×' if 'ratio' in spec else ''}{number:{'.2f' if 0.1 <= number < 10 else '.2g'}}"

    values = [a / b for a, b in zip(row["yours"], over["yours"], strict=True)] if over else row["yours"]
    seeds = (fmean(values), min(values), max(values))
    low, middle, high = sorted(map(scaled, Interval.of(values) if "rounds" in result["sizes"] else seeds))
    above, below = (_first(rows, name) if name else None for name in spec.get("paper", (spec["row"], spec.get("over"))))
    numbers = [_numbers(row["published"]) if row else (1.0,) for row in (above, below)]
    published = tuple(scaled(a / b) for a, b in zip(*numbers, strict=False))
    holds = (-1.0 if spec.get("inside") else float(spec.get("ratio") != 1), 1.0 if spec.get("inside") else math.inf)
    quote = above["published"] if above and "limit" in spec else ""
    words: dict[str, Any] = {"over": "below" if doublings < 0 else "above", "quote": quote}
    return Effect(result["item"], label, middle, low, high, holds, published, result["standing"], say, **words)


def _first(rows: Mapping[str, Any], ending: str) -> Any:
    return rows.get(ending) or next(row for name, row in rows.items() if name.endswith(ending))


def _numbers(printed: str) -> Sequence[float]:
    return tuple(float(number) for number in PRINTED.findall(printed))


def forest(results: Iterable[Mapping[str, Any]]) -> Picture:
    """Draw one row per effect; effects in the blue area hold; diamonds show the paper's numbers.

    results   As printed by `lora-lab reproduce --json`; those without rows or with an error are left out.
    """
    complete = [result for result in results if result["rows"] and not result["error"]]
    complete.sort(key=lambda result: list(MARKS).index(result["standing"]))
    rows = [effect for result in complete for effect in effects(result)]
    groups = [f"{named(row.item)}: {row.standing}" for row in rows]
    heads = [i for i, group in enumerate(groups) if group not in groups[:i]]
    places = [i + sum(head <= i for head in heads) for i in range(len(rows))]  # below its item's heading
    bottom = len(rows) + len(heads)
    picture, axes = new_axes(9, 1 + 0.4 * bottom)
    axes.axis("off")
    axes.set(xlim=(0, 100), ylim=(bottom - 0.1, -1.4))
    for x, column in COLUMNS.items():
        axes.text(x, -1, column, va="center", fontsize=9.5, color=GRAY)
    for y, row in zip(places, rows, strict=True):
        _draw(axes, y, row)
    for i in heads:
        axes.text(0, places[i] - 1, groups[i], va="center", fontsize=10, fontweight="bold")
        axes.axhline(places[i] - 1.5, color="#dddddd", linewidth=0.8)
    if any(row.open and row.inside for row in rows):
        note = "A black line in the blue is undecided, due to Holm's correction or because it lies within the margin."
        axes.text(0, bottom, note, color=GRAY)
    picture.suptitle(headline(complete), fontsize=12, weight="bold")
    picture.alt = " ".join([picture.get_suptitle(), *map(_describe, rows)])
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
    mark, color = MARKS[row.outcome]
    for x, text in zip(COLUMNS, (row.label, *row.texts), strict=True):
        axes.text(x, y, text.replace("\n", " "), va="center", fontsize=9.5)
    axes.text(VERDICT, y, f"{mark} {row.outcome}", va="center", fontsize=10, color=color, weight="bold")
    ends = [end for end in (row.low, row.high, *row.paper, *row.holds) if math.isfinite(end)]
    least, span = min(ends), max(ends) - min(ends) or 1.0

    def at(value: float) -> float:
        return min(END, START + (END - START) * (0.06 + 0.8 * (value - least) / span))

    axes.barh(y, at(row.holds[1]) - at(row.holds[0]), 0.8, left=at(row.holds[0]), color=BLUE, alpha=0.16)
    axes.plot([at(row.low), at(row.high)], [y, y], color=color, linewidth=2)
    axes.plot(at(row.middle), y, "o", color=color, markersize=6)
    axes.plot([*map(at, row.paper)], [y] * len(row.paper), "d", color=ORANGE, mfc="white", markersize=6)


def _describe(row: Effect) -> str:
    paper, ours, needed = row.texts
    text = f"{named(row.item)}, {row.label}: paper {paper}; ours {ours}; needed {needed}: {row.outcome}."
    return " ".join(text.split())

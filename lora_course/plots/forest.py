"""All results of `lora-lab reproduce` in one picture: each effect with its interval against the limit of its rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lora_course.paper.reproduce.effects import Effect, effects
from lora_lab.plots import BLACK, BLUE, GRAY, ORANGE, RED, Picture
from lora_lab.plots.axes import new_axes, tidy

MARKS = {"holds": ("o", BLUE), "fails": ("X", RED), "undecided": ("D", BLACK), "not tested": ("o", GRAY)}
EDGE = 40  # of the axis, in limits
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")


def forest(results: Iterable[Mapping[str, Any]]) -> Picture:
    """A row for each effect, the items by outcome; blue is where the whole interval must lie, diamonds are the paper's.

    results   as `lora-lab reproduce --json` has them; those without rows are left out
    """
    whole = [one for one in results if one["rows"] and not one["error"]]
    found = sorted(whole, key=lambda one: list(MARKS).index(one["standing"]))
    rows = [effect for one in found for effect in effects(one)]
    picture, axes = new_axes(8.4, 1.6 + 0.27 * len(rows))
    axes.set_xscale("symlog", linthresh=1, linscale=1.2)
    axes.set_xlim(-EDGE / 2, EDGE)
    axes.set_ylim(len(rows) - 0.4, -0.9)
    for place, row in enumerate(rows):
        _draw(axes, place, row, first=place == 0 or rows[place - 1].item != row.item)
    axes.axvline(0, color=GRAY, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
    axes.set_xticks([-10, -1, 0, 1, 10], ["−10", "−1", "no effect", "1", "10"], fontsize=8)
    axes.set_xlabel("effect, in units of the rule's limit; to the right is what the paper found", fontsize=8)
    axes.text(EDGE, -0.75, "paper: diamond   ", ha="right", fontsize=8, color=ORANGE)
    axes.text(-EDGE / 2, -0.75, " blue: the whole interval must lie here to hold", fontsize=8, color=BLUE)
    picture.suptitle(headline(found), fontsize=11, fontweight="bold")
    tidy(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    picture.alt = f"{headline(found)} " + " ".join(map(_said, rows))
    return picture


def headline(found: Iterable[Mapping[str, Any]]) -> str:
    """The finding: how many of the items hold, fail, stay undecided, were not tested."""
    count = Counter(one["standing"] for one in found)
    verbs = {"holds": "hold", "fails": "fail", "undecided": "undecided", "not tested": "never tested"}
    parts = [f"{NUMBERS[count[one]]} {verb}" for one, verb in verbs.items()]
    return f"{NUMBERS[count.total()].capitalize()} findings, run again: {', '.join(parts)}."


def named(item: str) -> str:
    """An item as people write it: "Table 1", "Figure 3", "Section 4.2"."""
    kind = item.rstrip("0123456789_")
    return f"{'Figure' if kind == 'fig' else kind.capitalize()} {item[len(kind) :].replace('_', '.')}"


def _draw(axes: Any, place: int, row: Effect, first: bool) -> None:
    mark, color = MARKS[row.standing]
    tested = row.standing != "not tested"
    start, end = (max(-EDGE / 2, row.holds[0]), min(EDGE, row.holds[1]))
    axes.barh(place, end - start, 0.8, left=start, color=BLUE, alpha=0.13 if tested else 0.05, zorder=1)
    axes.plot([row.low, row.high], [place, place], color=color, linewidth=2, alpha=1 if tested else 0.6, zorder=3)
    axes.plot(row.middle, place, mark, color=color, mfc=color if tested else "white", markersize=6, zorder=4)
    axes.plot(row.paper, [place] * len(row.paper), "d", color=ORANGE, mfc="white", markersize=6, zorder=5)
    if first:
        how = {"transform": axes.get_yaxis_transform(), "fontweight": "bold" if tested else "normal"}
        axes.text(1.01, place, f"{named(row.item)}: {row.standing}", color=color, va="center", fontsize=8, **how)
        axes.axhline(place - 0.5, color="#dddddd", linewidth=0.6, zorder=0)


def _said(row: Effect) -> str:
    upper = "" if math.isinf(row.holds[1]) else f" to {row.holds[1]:g}"
    return (f"{named(row.item)}, {row.label}: {row.middle:.2g} limits ({row.low:.2g} to {row.high:.2g}), needs "
            f"{row.holds[0]:g}{upper} and up: {row.standing}.")  # fmt: skip

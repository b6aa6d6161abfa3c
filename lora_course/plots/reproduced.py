"""A surrogate in one picture: every seed or round a dot, their middle a line, and in words what the paper says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, RED, Picture
from lora_lab.plots.axes import finish, new_axes

COLOURS = {"holds": GREEN, "fails": RED, "undecided": GREY, "not tested": GREY}
SAID = {"holds": "holds", "fails": "does not hold", "undecided": "is undecided", "not tested": "was not tested"}
WIDE = 50  # times
MANY = 12  # values of a row above which they are drawn paler: rounds, not seeds


def picture(found: Mapping[str, Any], reference: Mapping[str, Any] | None = None) -> Picture:
    """Rows of a result from top to bottom, published in words beside them; pale behind: the reference's."""
    rows = [row for row in found["rows"] if row["yours"]]
    made, axes = new_axes(8.2, 1.9 + 0.27 * len(rows))
    for place, row in enumerate(rows):
        _behind(axes, place, row["name"], reference)
        _draw(axes, place, row["yours"], COLOURS[found["standing"]], rounds=_in_rounds(found))
    axes.set_yticks(range(len(rows)), [_named(row, found) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    if found["line"] is not None:
        axes.axvline(found["line"], color=GREY, linestyle="--", linewidth=1, zorder=1)
    if _wide(rows):
        axes.set_xscale("log")
    _published(axes, rows)
    axes.set_xlabel(found["axis"])
    finish(axes, headline(found), _below(found, reference), grid="x")
    made.alt = in_words(found)
    return made


def headline(found: Mapping[str, Any]) -> str:
    """What the picture says: the verdict on the finding, and that it is a surrogate."""
    return f"{place_of(found['item'])}, a surrogate: “{found['finding']}” {SAID[found['standing']]} here"


def place_of(item: str) -> str:
    """Where an item stands in the paper, as people write it: "table1" is Table 1, "section4_2" Section 4.2."""
    kind, number = re.fullmatch(r"([a-z]+)([\d_]*)", item).groups()  # type: ignore[union-attr]
    return f"{'Figure' if kind == 'fig' else kind.capitalize()} {number.replace('_', '.')}".strip()


def in_words(found: Mapping[str, Any]) -> str:
    """The picture for those who do not see it."""
    rows, rounds = [row for row in found["rows"] if row["yours"]], _in_rounds(found)
    middles = "; ".join(f"{_named(row, found)} {middle(row['yours'], rounds=rounds):.4g}" for row in rows)
    return f"{headline(found)}. {found['axis']}: {middles}."


def _named(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A row's name, with its unit where neither it nor the axis says it: one item weighs, times and counts at once."""
    unit = row.get("unit", found["axis"])
    return row["name"] if unit == found["axis"] or unit in row["name"] else f"{row['name']} ({unit})"


def middle(values: Sequence[float], *, rounds: bool = False) -> float:
    """The mean of seeds; the median of rounds, some of which were disturbed, as the rules take it: however few."""
    return median(values) if rounds or len(values) > MANY else fmean(values)


def _in_rounds(found: Mapping[str, Any]) -> bool:
    return "rounds" in found["sizes"]


def _draw(axes: Any, place: int, values: Sequence[float], colour: str, *, rounds: bool) -> None:
    many = len(values) > MANY
    axes.scatter(values, [place] * len(values), s=10 if many else 22, color=BLUE, alpha=0.25 if many else 0.8, zorder=3)
    at = middle(values, rounds=rounds)
    axes.plot([at, at], [place - 0.32, place + 0.32], color=colour, linewidth=2.4, zorder=4)


def _behind(axes: Any, place: int, name: str, reference: Mapping[str, Any] | None) -> None:
    own = [row["yours"] for row in (reference or {}).get("rows", ()) if row["name"] == name]
    for values in own:
        axes.scatter(values, [place + 0.2] * len(values), s=16, color=ORANGE, alpha=0.35, marker="D", zorder=2)


def _published(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """The paper's figures at the right, in the paper's own units: on this axis they would say nothing."""
    if not any(row["published"] for row in rows):
        return
    axes.text(1.02, 1.01, "the paper:", transform=axes.transAxes, fontsize=8, color=GREY, va="bottom")
    for place, row in enumerate(rows):
        axes.text(1.02, place, row["published"] or "-", transform=axes.get_yaxis_transform(), fontsize=8, va="center")


def _wide(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether values lie so far apart, all above 0, that only a logarithmic axis shows them."""
    values = [value for row in rows for value in row["yours"]]
    return min(values, default=0.0) > 0 and max(values) > WIDE * min(values)


def _sizes(found: Mapping[str, Any]) -> dict[str, Any]:
    """As planned, but the rounds that there are: an item that its minutes ended has fewer."""
    sizes, there = dict(found["sizes"]), max((len(row["yours"]) for row in found["rows"]), default=0)
    if _in_rounds(found) and there < sizes["rounds"]:
        sizes["rounds"] = f"{there} of {sizes['rounds']} planned"
    return sizes


def _below(found: Mapping[str, Any], reference: Mapping[str, Any] | None) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in _sizes(found).items() if not isinstance(value, list))
    behind = ""
    rows = {row["name"] for row in found["rows"] if row["yours"]}
    if reference and any(row["yours"] and row["name"] in rows for row in reference["rows"]):
        made = reference["environment"]
        behind = f" Diamonds: the reference ({made['hardware']}, {made['date']})."
    each = "a round" if _in_rounds(found) else "a seed"
    dashed = "" if found["line"] is None else " Dashed: the baseline."
    return f"Each dot is {each}; {sizes}.{dashed}{behind}"

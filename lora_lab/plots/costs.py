"""Pictures of what methods cost: memory, predicted and measured, as towers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

from lora_lab.accounting.units import GIB, MIB, binary
from lora_lab.plots import Picture
from lora_lab.plots.compared import Found, finish, label_of, new_axes
from lora_lab.plots.towers import STYLES

MARK = "#111111"  # what was measured


def memory(found: Found) -> Picture:
    """A tower for each method, as high as the bytes predicted, by category where known; what was measured as a mark."""
    rows = sorted(found["methods"], key=_height, reverse=True)
    unit, size = ("GiB (2^30 bytes)", GIB) if max(map(_height, rows)) > 1.5 * GIB else ("MiB (2^20 bytes)", MIB)
    picture, axes = new_axes(max(4.8, 0.72 * len(rows)), 4.0)
    for place, row in enumerate(rows):
        _tower(axes, place, row, size)
    axes.set_xticks(range(len(rows)), [fill(label_of(row), 10) for row in rows], fontsize=7.5)
    axes.set(ylabel=unit, xlim=(-0.6, len(rows) - 0.4), ylim=(0, 1.12 * max(map(_height, rows)) / size))
    said = _memory_said(rows)
    finish(axes, said, "towers: predicted at the peak of a step; black bars: measured in a real one", "y")
    _legend(axes, rows)
    picture.alt = f"{said}. " + " ".join(f"{label_of(row)}: {_bytes_said(row)}." for row in rows)
    return picture


def _tower(axes: Any, place: int, row: Found, size: int) -> None:
    base = 0.0
    for name, part in (row.get("predicted_parts") or {"": row.get("predicted_bytes") or 0}).items():
        colour, hatch = STYLES.get(name, ("#9ecae1", ""))
        style = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.6, "zorder": 2}
        axes.bar(place, part / size, 0.62, bottom=base, **style)
        base += part / size
    if row.get("peak_bytes"):
        axes.plot([place - 0.36, place + 0.36], [row["peak_bytes"] / size] * 2, color=MARK, linewidth=3, zorder=4)
    axes.annotate(
        f"{base:,.3g}" if base else "not\nmodelled", (place, base), xytext=(0, 2), textcoords="offset points",
        ha="center", va="bottom", fontsize=7.5, zorder=5,
    )  # fmt: skip


def _legend(axes: Any, rows: Sequence[Found]) -> None:
    """The categories that are there, below the title's line."""
    names = [name for name in STYLES if any(name in (row.get("predicted_parts") or {}) for row in rows)]
    bars = {name: axes.bar(0, 0, color=STYLES[name][0], hatch=STYLES[name][1], edgecolor="white") for name in names}
    if bars:
        axes.legend(list(bars.values()), names, fontsize=8, frameon=False, loc="upper right")


def _height(row: Found) -> int:
    return max(row.get("predicted_bytes") or 0, row.get("peak_bytes") or 0)


def _memory_said(rows: Sequence[Found]) -> str:
    known = [row for row in rows if row.get("predicted_bytes")]
    if len(known) < 2:
        return "Peak memory of a training step"
    by_name = {row["method"]: row for row in reversed(known)}  # of several the first
    most, least = (f(known, key=lambda row: row["predicted_bytes"]) for f in (max, min))
    if {"full", "lora"} <= by_name.keys():  # the two that a reader asks about
        most, least = by_name["full"], by_name["lora"]
    times = most["predicted_bytes"] / least["predicted_bytes"]
    return f"{label_of(most)} is predicted to need {times:.1f} times the memory of {label_of(least)}"


def _bytes_said(row: Found) -> str:
    names = (("predicted_bytes", "predicted"), ("peak_bytes", "measured"))
    said = [f"{binary(row[key])} {word}" for key, word in names if row.get(key)]
    return ", ".join(said) or "not modelled and not measured"

"""The savings panel's picture: one square layer over the rank, and a real model's layers, full against LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator

from lora_lab.accounting.params import Row
from lora_lab.plots import BLUE, GREY, ORANGE, RED
from lora_lab.plots.sheet import Sheet

SMALLEST = 100  # numbers; where the axis begins
TOP = 1.0  # where titles stand: one that looks for its place takes a tenth of the painting to find this one


def sheets() -> tuple[Sheet, Sheet]:
    """Where the layer and the model are drawn: two pictures, so that a narrow notebook shows one below the other."""
    return Sheet(4.3, 3.7, (0.16, 0.27, 0.78, 0.60)), Sheet(4.3, 3.7, (0.39, 0.27, 0.57, 0.60))


def draw_layer(axes: Any, d: int, rank: int) -> None:
    """One layer of d x d: d^2 against 2 d r, the break-even rank d / 2, and where the slider stands."""
    if axes.get_xscale() != "log":  # else the sheet has kept it
        axes.set(xscale="log", yscale="log", xlabel="rank r (log)", ylabel="numbers (log)")
        _finish(axes, 8, axes.xaxis, axes.yaxis)
    ranks = np.array([1, max(d, rank)])
    axes.set(xlim=(0.9, 1.2 * ranks[1]), ylim=(1.4 * d, 4 * d * ranks[1]))
    axes.plot(ranks, [d * d, d * d], color=GREY, linestyle="--", linewidth=2, label="full: $d^2$")
    axes.plot(ranks, 2 * d * ranks, color=BLUE, linewidth=2, label="LoRA: $2 d r$")
    axes.plot([d / 2, d / 2], [d, 4 * d * d], color=ORANGE, linestyle=":", linewidth=2, label="break-even: $d/2$")
    axes.plot([rank], [2 * d * rank], color=RED, marker="D", markersize=8, linestyle="", label="the slider")
    axes.set_title(f"one layer, {d:,} x {d:,}\nLoRA saves left of the dotted line", fontsize=9, y=TOP)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        fontsize=8, loc="lower left", bbox_to_anchor=(0, 0), bbox_transform=axes.figure.transFigure, ncols=2,
        frameon=False,
    )  # fmt: skip


def draw_model(axes: Any, model: str, rows: Sequence[Row]) -> None:
    """Two dots for each kind of layer, one such layer: all of it, and what LoRA trains beside it.

    Dots and not bars, because the axis is logarithmic: the gap says how many times fewer, a length says nothing.
    """
    places, few = np.arange(len(rows)), len(rows) < 12
    if axes.get_xscale() != "log":  # else the sheet has kept it, with the names of these layers
        names = zip(role_names(rows), rows, strict=True)
        axes.set(xscale="log", ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlabel("numbers (log); r*: break-even rank", fontsize=8.5)
        axes.set_yticks(places, [f"{name}  r* {row.break_even_rank or 0:,.0f}" for name, row in names])
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        axes.set_axisbelow(True)
        _finish(axes, 7.5 if few else 6, axes.xaxis)
    whole = np.array([row.in_features * row.out_features for row in rows])
    trained = np.array([row.trained / row.count or np.nan for row in rows])  # what is frozen has no blue dot
    trains, size = np.isfinite(trained), 8 if few else 5
    axes.set_xlim(SMALLEST, 3 * max(whole, default=SMALLEST))
    axes.hlines(places[trains], trained[trains], whole[trains], color="#c8c8c8", linewidth=2, zorder=1)
    axes.plot(whole, places, "s", color=GREY, markersize=size, label="full: $d_{in} d_{out}$")
    axes.plot(trained, places, "o", color=BLUE, markersize=size, label="LoRA: $r (d_{in} + d_{out})$")
    axes.set_title(
        f"{model}, one layer of each kind;\nthe gap is what LoRA saves", fontsize=9, x=1.02, y=TOP, loc="right"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, -0.2), ncols=2, frameon=False)


def _finish(axes: Any, size: float, *log: Any) -> None:
    """Letters of one size, and every other power of ten: ticks are most of what a log axis costs to paint."""
    axes.tick_params(labelsize=size)
    for axis in log:
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_locator(NullLocator())


def role_names(rows: Sequence[Row]) -> list[str]:
    """What each row is called by what it does: its role, and where several share it what tells them apart.

    "self_attn.q_proj" -> "q"; "mlp.shared_experts.gate_proj" -> "gate shared_experts"; without a role as `short_names`.
    """
    paths = [[part for part in row.name.split(".")[:-1] if part.isidentifier()] for row in rows]
    shorts = short_names([row.name for row in rows])
    names = []
    for row, path, short in zip(rows, paths, shorts, strict=True):
        others = [p for p, other in zip(paths, rows, strict=True) if other.role == row.role]
        own = [part for part in path if not all(part in other for other in others)]
        names.append(short if row.role == "other" else " ".join([row.role, ".".join(own)]).strip())
    return [name if names.count(name) == 1 else row.name for name, row in zip(names, rows, strict=True)]


def short_names(names: Sequence[str]) -> list[str]:
    """The ends of modules' paths, as long as it takes to tell them apart: "self_attn.q_proj" -> "q_proj"."""
    paths = [[part for part in name.split(".") if part != "*"] for name in names]
    longest = max(map(len, paths), default=0)
    ends = [[".".join(path[-keep:]) for path in paths] for keep in range(1, longest + 1)]
    return [
        next((end[i] for end in ends if end.count(end[i]) == 1 and end[i] != "dense"), name)
        for i, name in enumerate(names)
    ]

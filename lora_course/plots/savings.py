"""How many times fewer parameters train, over the size of the model: one dot a model, one line an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.ticker import FuncFormatter

from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture
from lora_lab.plots.axes import new_axes

CLAIMED = (100, 1000)  # times fewer: claim 3
_STYLES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (RED, "D"), (PURPLE, "v"))
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def times_fewer(
    series: Mapping[str, Sequence[tuple[float, float]]], title: str, named: Iterable[tuple[str, float]] = ()
) -> Picture:
    """Points (parameters of the model, full / trained) of each adapter, and the band that is often claimed.

    named: models whose size is marked below the upper edge, as (name, parameters); at most five series.
    """
    picture, axes = new_axes(7.2, 4.6)
    axes.axhspan(*CLAIMED, color="#e4e4e4", label="100 to 1,000 times")
    for (label, points), (colour, marker) in zip(series.items(), _STYLES, strict=False):
        xs, ys = zip(*sorted(points), strict=True)
        axes.plot(xs, ys, color=colour, marker=marker, markersize=5, linestyle="", label=label)
    highest = max(y for points in series.values() for _, y in points)
    axes.set(xscale="log", yscale="log", facecolor="white", ylim=(None, 40 * highest))
    axes.set(xlabel="parameters of the model", ylabel="times fewer parameters that train")
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    for name, size in named:
        axes.axvline(size, color=GREY, linewidth=0.6, linestyle=":", zorder=0)
        axes.annotate(name, (size, 34 * highest), rotation=90, fontsize=8, ha="right", va="top", color="#444444")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, fontsize=10.5, loc="left")
    picture.legend(fontsize=8, loc="outside lower center", ncols=3, frameon=False)
    return picture


def _short(value: float, _: object) -> str:
    """10,000,000 as "10M"."""
    return next((f"{value / unit:g}{letter}" for unit, letter in _UNITS if value >= unit), f"{value:g}")

"""Memory as towers: a stacked bar a method, a colour and a hatch a category, against the lines of real cards.

GiB |  ___                            ---- 80 GB: A100
    | |///|  optimizer
    | |===|  gradients     ___        ---- 24 GB: RTX 3090
    | |___|  weights      |___|
       full               LoRA
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from lora_lab.accounting.gpus import Card, usable
from lora_lab.accounting.units import GIB, three_figures
from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture
from lora_lab.plots.beside import spread
from lora_lab.plots.sheet import Sheet

STYLES = {
    "weights": (GREY, ""),
    "optimizer": (RED, "xx"),
    "gradients": (ORANGE, "//"),
    "activations": (BLUE, "--"),
    "logits": (GREEN, ".."),
    "temporaries": (PURPLE, "\\\\"),
}
LINES = 8  # cards drawn at most
ABOVE = 1.75  # a card's line is drawn up to so many times the tallest tower
APART = 0.062  # least distance of two labels, as a share of the axes' height


@dataclass(frozen=True)
class Tower:
    """A method's bytes by category; empty where its memory cannot be said."""

    name: str
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes of the whole tower."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Line:
    """A card: its name, and the bytes it leaves for tensors."""

    name: str
    bytes: int


def lines(cards: Iterable[Card]) -> list[Line]:
    """One line for each size of GPU, the smallest first, named after a card that people own where there is one."""
    by_size: dict[int, list[Card]] = {}
    for card in cards:
        if card.device == "cuda":
            by_size.setdefault(card.memory, []).append(card)
    return [_line(size, by_size[size]) for size in sorted(by_size)]


def near(towers: Sequence[Tower], cards: Sequence[Line]) -> list[Line]:
    """For each tower the largest card that is too small and the smallest that is not, if it stays in the picture."""
    top = ABOVE * max((t.peak for t in towers), default=0)
    found = set()
    for peak in (t.peak for t in towers if t.parts):
        found.update([c for c in cards if c.bytes < peak][-1:] + [c for c in cards if peak <= c.bytes <= top][:1])
    return sorted(found, key=lambda c: c.bytes)[-LINES:]


def tower_sheet() -> Sheet:
    """Axes for towers, and below them what the colours and hatches mean."""
    sheet = Sheet(7.2, 4.6, (0.09, 0.165, 0.68, 0.70))
    sheet.legend(
        [_block(name) for name in STYLES], list(STYLES), loc="lower center", ncols=len(STYLES), frameon=False,
        fontsize=9.5, handlelength=1.4, columnspacing=1.2, bbox_to_anchor=(0.5, 0.0),
    )  # fmt: skip
    return sheet


def draw_towers(axes: Any, towers: Sequence[Tower], cards: Sequence[Line], title: str) -> None:
    """These towers on the axes of a sheet, and of the cards those that are near. Title: what is to be seen."""
    chosen = near(towers, cards)
    top = 1.1 * max([t.peak for t in towers] + [c.bytes for c in chosen] + [1]) / GIB
    axes.set(ylabel="GiB (2^30 bytes)", xlim=(-0.6, len(towers) - 0.4), ylim=(0, top))
    axes.set_xticks(range(len(towers)), [t.name for t in towers], fontsize=10)
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.spines[["top", "right"]].set_visible(False)
    for i, tower in enumerate(towers):
        base = 0.0
        for name in STYLES:  # from the ground up
            axes.add_artist(_block(name, i, base, tower.parts.get(name, 0) / GIB))  # the limits are known
            base += tower.parts.get(name, 0) / GIB
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}  # a line may run behind
        total = three_figures(base) if tower.parts else "cannot\nbe said"
        axes.text(i, base, total, ha="center", va="bottom", fontsize=10, zorder=4, bbox=paper)
    _draw_cards(axes, chosen, [card.bytes / GIB / top for card in chosen], 1, 0.8)
    axes.text(0.012, 0.985, title, transform=axes.figure.transFigure, fontsize=10.5, va="top", ha="left")


def towers_picture(towers: Sequence[Tower], cards: Sequence[Line], title: str) -> Picture:
    """One picture of these towers."""
    sheet = tower_sheet()
    draw_towers(sheet.axes[0], towers, cards, title)
    heights = (f"{t.name} {three_figures(t.peak / GIB)} GiB" if t.parts else f"{t.name} cannot be said" for t in towers)
    sheet.alt = f"{title}. {'; '.join(heights)}."
    return sheet


def peaks_picture(
    lengths: Sequence[int], peaks: Mapping[str, Sequence[int]], cards: Sequence[Line], title: str
) -> Picture:
    """Peak bytes over the tokens of a row, one line a method, both axes logarithmic; cards as lines across."""
    picture = Picture(figsize=(7.2, 4.6), dpi=100, facecolor="white")
    axes = picture.add_axes((0.09, 0.215, 0.68, 0.665))
    styles = zip((RED, BLUE, GREEN, PURPLE, ORANGE), "osD^v", ("-", "--", "-.", ":", "-"), strict=True)
    for (name, sizes), (colour, marker, dashes) in zip(peaks.items(), styles, strict=False):
        heights = [size / GIB for size in sizes]
        axes.plot(lengths, heights, color=colour, marker=marker, markersize=5, linestyle=dashes, label=name)
    axes.set(xscale="log", yscale="log", xlabel="tokens a row", ylabel="GiB (2^30 bytes)", facecolor="white")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths], fontsize=9)
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.4g}")
    low, high = axes.get_ylim()
    inside = [card for card in cards if low < card.bytes / GIB < high]
    places = [math.log(card.bytes / GIB / low) / math.log(high / low) for card in inside]
    _draw_cards(axes, inside, places, 0.6, 0.6)
    axes.spines[["top", "right"]].set_visible(False)
    picture.legend(loc="lower center", ncols=len(peaks), frameon=False, fontsize=9.5, columnspacing=1.2)
    picture.text(0.012, 0.985, title, fontsize=10.5, va="top", ha="left")
    return picture


def _block(name: str, tower: int = 0, base: float = 0.0, height: float = 0.0) -> Rectangle:
    """A category's part of a tower."""
    (colour, hatch), corner = STYLES[name], (tower - 0.31, base)
    style = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.6, "hatch": hatch, "zorder": 2}
    return Rectangle(corner, 0.62, height, **style)  # type: ignore[arg-type]


def _draw_cards(axes: Any, cards: Sequence[Line], places: Sequence[float], across: float, aside: float) -> None:
    """A dashed line for each card, at `places` as shares of the axes' height, and beside it its name, moved apart.

    across, aside    how thick the line is, and the one that leads to the name
    """
    for card, at, moved in zip(cards, places, spread(places, APART), strict=True):
        axes.axhline(card.bytes / GIB, color="#333333", linestyle="--", linewidth=across, zorder=1)
        axes.plot([1.0, 1.035], [at, moved], color="#333333", linewidth=aside, transform=axes.transAxes, clip_on=False)
        axes.text(1.04, moved, card.name, fontsize=9.5, va="center", transform=axes.transAxes)


def _line(size: int, cards: Sequence[Card]) -> Line:
    own = [card for card in cards if card.where == "desktop"] or list(cards)
    name = own[0].name.removesuffix(f" {size // GIB} GB")
    return Line(f"{size // GIB} GB: {name}", usable(own[0]))

"""Memory as towers: a stacked bar a method, a colour and a hatch a category, against the lines of real cards.

GiB |  ___                            ---- 80 GB: A100
    | |///|  optimizer
    | |===|  gradients     ___        ---- 24 GB: RTX 3090
    | |___|  weights      |___|
       full               LoRA
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from lora_lab.accounting.gpus import Card, usable
from lora_lab.accounting.units import GIB, three_figures
from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture
from lora_lab.plots.beside import spread

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


class TowerFigure:
    """Bars and lines that are moved, not made anew, while a slider moves. slots: the most towers shown at once."""

    def __init__(self, slots: int = 5) -> None:
        self.figure = Picture(figsize=(7.2, 4.6), dpi=100, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0.09, 0.165, 0.68, 0.70))
        self.axes.spines[["top", "right"]].set_visible(False)
        self.axes.set(ylabel="GiB (2^30 bytes)", facecolor="white", xlim=(-0.6, slots - 0.4))
        self.axes.yaxis.set_major_locator(MaxNLocator(7))
        self.bars = {name: self._bars(name, slots) for name in STYLES}
        blank = {"ha": "center", "va": "bottom", "fontsize": 10, "zorder": 4}
        blank["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}  # a line may run behind
        self.totals = [self.axes.text(i, 0, "", **blank) for i in range(slots)]  # type: ignore[arg-type]
        self._make_lines()
        handles = [self.bars[name][0] for name in STYLES]
        self.figure.legend(
            handles, list(STYLES), loc="lower center", ncols=len(STYLES), frameon=False, fontsize=9.5,
            handlelength=1.4, columnspacing=1.2, bbox_to_anchor=(0.5, 0.0),
        )  # fmt: skip
        self.title = self.figure.text(0.012, 0.985, "", fontsize=10.5, va="top", ha="left")

    def show(self, towers: Sequence[Tower], cards: Sequence[Line], title: str) -> None:
        """Move everything to these towers; of the cards those that are near. Title: what is to be seen."""
        chosen = near(towers, cards)
        top = 1.1 * max([t.peak for t in towers] + [c.bytes for c in chosen] + [1]) / GIB
        self.axes.set_ylim(0, top)
        self.axes.set_xlim(-0.6, len(towers) - 0.4)
        self.axes.set_xticks(range(len(towers)), [t.name for t in towers], fontsize=10)
        for i, total in enumerate(self.totals):
            self._stack(i, towers[i] if i < len(towers) else Tower(""))
            total.set_visible(i < len(towers))
        self._move_lines(chosen, top)
        self.title.set_text(title)

    def png(self) -> bytes:
        """The picture as it is now; compressed little, because a slider waits for it."""
        buffer = io.BytesIO()
        self.canvas.print_png(buffer, pil_kwargs={"compress_level": 1})
        return buffer.getvalue()

    # ---- parts

    def _bars(self, name: str, slots: int) -> list[Rectangle]:
        colour, hatch = STYLES[name]
        style = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.6, "hatch": hatch, "zorder": 2}
        bars = [Rectangle((i - 0.31, 0), 0.62, 0, **style) for i in range(slots)]  # type: ignore[arg-type]
        for bar in bars:
            self.axes.add_patch(bar)
        return bars

    def _stack(self, i: int, tower: Tower) -> None:
        """One tower from the ground up, its total above it."""
        base = 0.0
        for name, bars in self.bars.items():
            height = tower.parts.get(name, 0) / GIB
            bars[i].set_y(base)
            bars[i].set_height(height)
            base += height
        self.totals[i].set_y(base)
        self.totals[i].set_text(three_figures(base) if tower.parts else "cannot\nbe said")

    def _make_lines(self) -> None:
        for_all: dict[str, Any] = {"transform": self.axes.transAxes, "clip_on": False}
        self.lines = [
            self.axes.axhline(0, color="#333333", linestyle="--", linewidth=1, zorder=1) for _ in range(LINES)
        ]
        self.leaders = [self.axes.plot([], [], color="#333333", linewidth=0.8, **for_all)[0] for _ in range(LINES)]
        self.labels = [self.axes.text(1.04, 0, "", fontsize=9.5, va="center", **for_all) for _ in range(LINES)]  # type: ignore[arg-type]

    def _move_lines(self, cards: Sequence[Line], top: float) -> None:
        places = [card.bytes / GIB / top for card in cards]
        moved = spread(places, APART)
        for i, (line, leader, label) in enumerate(zip(self.lines, self.leaders, self.labels, strict=True)):
            shown = i < len(cards)
            for artist in (line, leader, label):
                artist.set_visible(shown)
            if shown:
                line.set_ydata([places[i] * top] * 2)
                leader.set_data([1.0, 1.035], [places[i], moved[i]])
                label.set_text(cards[i].name)
                label.set_y(moved[i])


def towers_picture(towers: Sequence[Tower], cards: Sequence[Line], title: str) -> Picture:
    """One picture of these towers."""
    figure = TowerFigure(len(towers))
    figure.show(towers, cards, title)
    heights = (f"{t.name} {three_figures(t.peak / GIB)} GiB" if t.parts else f"{t.name} cannot be said" for t in towers)
    figure.figure.alt = f"{title}. {'; '.join(heights)}."
    return figure.figure


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
    for card, at, moved in zip(inside, places, spread(places, APART), strict=True):
        axes.axhline(card.bytes / GIB, color="#333333", linestyle="--", linewidth=0.6, zorder=1)
        axes.plot([1.0, 1.035], [at, moved], color="#333333", linewidth=0.6, transform=axes.transAxes, clip_on=False)
        axes.text(1.04, moved, card.name, fontsize=9.5, va="center", transform=axes.transAxes)
    axes.spines[["top", "right"]].set_visible(False)
    picture.legend(loc="lower center", ncols=len(peaks), frameon=False, fontsize=9.5, columnspacing=1.2)
    picture.text(0.012, 0.985, title, fontsize=10.5, va="top", ha="left")
    return picture


def _line(size: int, cards: Sequence[Card]) -> Line:
    own = [card for card in cards if card.where == "desktop"] or list(cards)
    name = own[0].name.removesuffix(f" {size // GIB} GB")
    return Line(f"{size // GIB} GB: {name}", usable(own[0]))

"""The savings panel's picture: one square layer over the rank, and a real model's layers, full against LoRA."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image  # comes with matplotlib

from lora_lab.accounting.parameters import Row
from lora_lab.plots import BLUE, GREY, ORANGE, RED, Picture

SMALLEST = 100  # numbers; where the bars begin


class SavingsFigure:
    """Two axes whose artists are moved, not made anew; only another list of layers rebuilds the bars."""

    def __init__(self) -> None:
        self.figure = Picture(figsize=(8.6, 3.6), dpi=100, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.curve = self.figure.add_axes((0.08, 0.27, 0.39, 0.63))  # each keeps to its half, so that a narrow
        self.bars = self.figure.add_axes((0.695, 0.27, 0.285, 0.63))  # notebook can show one below the other
        for axes in (self.curve, self.bars):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        self._make_curve()
        self.labels: list[str] = []

    def show_layer(self, d: int, rank: int) -> None:
        """One layer of d x d: d^2 against 2 d r, the break-even rank d / 2, and where the slider stands."""
        ranks = np.array([1, max(d, rank)])
        self.full.set_data(ranks, [d * d, d * d])
        self.lora.set_data(ranks, 2 * d * ranks)
        self.even.set_data([d / 2, d / 2], [d, 4 * d * d])
        self.point.set_data([rank], [2 * d * rank])
        self.curve.set(xlim=(0.9, 1.2 * ranks[1]), ylim=(1.4 * d, 4 * d * ranks[1]))
        self.curve.set_title(f"one layer, {d:,} x {d:,}: break-even at r = {d / 2:,.0f}", fontsize=9)

    def show_model(self, model: str, rows: Sequence[Row]) -> None:
        """A bar for each kind of layer, one such layer: all of it, and what LoRA trains beside it."""
        names = short_names([row.name for row in rows])
        labels = [f"{name}  r* {row.break_even_rank or 0:,.0f}" for name, row in zip(names, rows, strict=True)]
        if labels != self.labels:
            self._make_bars(labels)
        for row, grey, blue in zip(rows, self.whole, self.trained, strict=True):
            grey.set_width(row.in_features * row.out_features)
            blue.set_width(row.trained / row.count)
        largest = max((row.in_features * row.out_features for row in rows), default=SMALLEST)
        self.bars.set_xlim(SMALLEST, 3 * largest)
        self.bars.set_title(f"{model}: numbers in one layer (r*: break-even)", fontsize=9, loc="right")

    def png(self) -> bytes:
        """Both axes in one picture."""
        self.canvas.draw()
        return _encoded(np.asarray(self.canvas.buffer_rgba()))

    def halves(self) -> tuple[bytes, bytes]:
        """The curve and the bars, each as a PNG of its own, drawn in one go."""
        self.canvas.draw()
        pixels = np.asarray(self.canvas.buffer_rgba())
        middle = pixels.shape[1] // 2
        return _encoded(pixels[:, :middle]), _encoded(pixels[:, middle:])

    def _make_curve(self) -> None:
        axes = self.curve
        axes.set(xscale="log", yscale="log", xlabel="rank r", ylabel="numbers")
        (self.full,) = axes.plot([], [], color=GREY, linestyle="--", linewidth=2, label="full: $d^2$")
        (self.lora,) = axes.plot([], [], color=BLUE, linewidth=2, label="LoRA: $2 d r$")
        (self.even,) = axes.plot([], [], color=ORANGE, linestyle=":", linewidth=2, label="break-even: $d/2$")
        (self.point,) = axes.plot([], [], color=RED, marker="D", markersize=8, linestyle="", label="the slider")
        self._few_ticks(axes.xaxis, axes.yaxis)
        self.figure.legend(
            *axes.get_legend_handles_labels(),
            fontsize=8,
            loc="lower left",
            bbox_to_anchor=(0.0, 0.0),
            ncols=2,
            frameon=False,
        )

    def _make_bars(self, labels: list[str]) -> None:
        axes, places = self.bars, np.arange(len(labels))
        axes.clear()
        self.labels = labels
        self.whole = axes.barh(places - 0.2, 1, 0.38, color=GREY, label="full: $d_{in} d_{out}$")
        self.trained = axes.barh(places + 0.2, 1, 0.38, color=BLUE, label="LoRA: $r (d_{in} + d_{out})$")
        axes.set_yticks(places, labels)
        axes.set(xscale="log", ylim=(len(labels) - 0.4, -0.6))
        axes.tick_params(labelsize=7.5 if len(labels) < 12 else 6)
        self._few_ticks(axes.xaxis)
        axes.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, -0.14), ncols=2, frameon=False)

    @staticmethod
    def _few_ticks(*axes: object) -> None:
        """Every other power of ten: the ticks of a log axis are most of what its painting costs."""
        for axis in axes:
            axis.set_major_locator(LogLocator(numticks=6))  # type: ignore[attr-defined]
            axis.set_minor_locator(NullLocator())  # type: ignore[attr-defined]


def _encoded(pixels: np.ndarray) -> bytes:
    """A PNG; compressed little, because a slider waits for it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, :3]).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def short_names(names: Sequence[str]) -> list[str]:
    """The ends of modules' paths, as long as it takes to tell them apart: "self_attn.q_proj" -> "q_proj"."""
    paths = [[part for part in name.split(".") if part != "*"] for name in names]
    longest = max(map(len, paths), default=0)
    ends = [[".".join(path[-keep:]) for path in paths] for keep in range(1, longest + 1)]
    return [
        next((end[i] for end in ends if end.count(end[i]) == 1 and end[i] != "dense"), name)
        for i, name in enumerate(names)
    ]

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

SMALLEST = 100  # numbers; where the axis begins


class SavingsFigure:
    """Two axes whose artists are moved, not made anew; only another list of layers rebuilds the dots."""

    def __init__(self) -> None:
        self.figure = Picture(figsize=(8.6, 3.7), dpi=100, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.curve = self.figure.add_axes((0.08, 0.27, 0.39, 0.60))  # each keeps to its half, so that a narrow
        self.dots = self.figure.add_axes((0.695, 0.27, 0.285, 0.60))  # notebook can show one below the other
        for axes in (self.curve, self.dots):
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
        self.curve.set_title(f"one layer, {d:,} x {d:,}\nLoRA saves left of the dotted line", fontsize=9)

    def show_model(self, model: str, rows: Sequence[Row]) -> None:
        """Two dots for each kind of layer, one such layer: all of it, and what LoRA trains beside it.

        Dots and not bars, because the axis is logarithmic: the gap says how many times fewer, a length says nothing.
        """
        names = role_names(rows)
        labels = [f"{name}  r* {row.break_even_rank or 0:,.0f}" for name, row in zip(names, rows, strict=True)]
        if labels != self.labels:
            self._make_dots(labels)
        whole = [row.in_features * row.out_features for row in rows]
        trained = [row.trained / row.count or np.nan for row in rows]  # what is frozen has no blue dot
        self.whole.set_xdata(whole)
        self.trained.set_xdata(trained)
        self.gaps.set_segments(
            [[(a, y), (b, y)] for y, (a, b) in enumerate(zip(trained, whole, strict=True)) if not np.isnan(a)]
        )
        self.dots.set_xlim(SMALLEST, 3 * max(whole, default=SMALLEST))
        self.dots.set_title(
            f"{model}, one layer of each kind;\nthe gap is what LoRA saves", fontsize=9, x=1.02, loc="right"
        )

    def png(self) -> bytes:
        """Both axes in one picture."""
        self.canvas.draw()
        return _encoded(np.asarray(self.canvas.buffer_rgba()))

    def halves(self) -> tuple[bytes, bytes]:
        """The curve and the dots, each as a PNG of its own, drawn in one go."""
        self.canvas.draw()
        pixels = np.asarray(self.canvas.buffer_rgba())
        middle = pixels.shape[1] // 2
        return _encoded(pixels[:, :middle]), _encoded(pixels[:, middle:])

    def _make_curve(self) -> None:
        axes = self.curve
        axes.set(xscale="log", yscale="log", xlabel="rank r (log)", ylabel="numbers (log)")
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

    def _make_dots(self, labels: list[str]) -> None:
        axes, places = self.dots, np.arange(len(labels))
        axes.clear()
        self.labels = labels
        ones, size = np.ones(len(labels)), 8 if len(labels) < 12 else 5
        self.gaps = axes.hlines([], [], [], color="#c8c8c8", linewidth=2, zorder=1)
        (self.whole,) = axes.plot(ones, places, "s", color=GREY, markersize=size, label="full: $d_{in} d_{out}$")
        words = "LoRA: $r (d_{in} + d_{out})$"
        (self.trained,) = axes.plot(ones, places, "o", color=BLUE, markersize=size, label=words)
        axes.set_yticks(places, labels)
        axes.set(xscale="log", ylim=(len(labels) - 0.4, -0.6))
        axes.set_xlabel("numbers (log); r*: break-even rank", fontsize=8.5)
        axes.grid(axis="y", color="#eeeeee", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7.5 if len(labels) < 12 else 6)
        self._few_ticks(axes.xaxis)
        axes.legend(fontsize=8, loc="upper right", bbox_to_anchor=(1.0, -0.2), ncols=2, frameon=False)

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

"""Runs in, matplotlib `Figure` out: no pyplot, no global state, opaque faces that a dark theme leaves readable."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image  # comes with matplotlib

from lora_lab.plots.described import in_words
from lora_lab.training.metrics import factor

# Okabe and Ito's colours, which the colour-blind tell apart; the lightest are darkened until a thin line in them is
# seen on white, even on a weak projector (contrast 3:1 and more; tests/plots/test_colours.py holds both).
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#CC8500", "#009E73", "#C04F00", "#CC79A7", "#666666"
SKY, BLACK = "#3399DD", "#000000"
PALE = "#949494"  # what stands behind: a reference
METRICS = {
    "accuracy": "accuracy (%)",
    "matthews": "Matthews' correlation x 100",
    "pearson": "Pearson's correlation x 100",
}


def metric_name(column: str) -> str:
    """A metric of runs as it stands at an axis: "validation_accuracy" is "validation accuracy (%)"."""
    metric = column.removeprefix("validation_")
    return f"{'test' if metric == column else 'validation'} {METRICS.get(metric, metric)}"


@dataclass(frozen=True)
class Curve:
    """One run as it is drawn: training loss by step, and the validation metric at the steps that have one."""

    label: str
    steps: Sequence[int]
    losses: Sequence[float]
    validation: Sequence[tuple[int, float]]


def curve(label: str, history: dict[str, list[Any]], metric: str) -> Curve:
    """The curve of a run's history."""
    points = [(record["step"], record[metric]) for record in history["validation"]]
    return Curve(label, history["step"], history["loss"], points)


class Picture(Figure):
    """A figure that a notebook shows by itself: matplotlib's own is only shown once pyplot has been set up for it.

    alt     what is to be seen, in words: beside the picture in a notebook's file, and its alternative text on a page;
            made from what is drawn where nothing better is given
    """

    alt: str = ""
    canvas: FigureCanvasAgg

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        FigureCanvasAgg(self)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        alt = self.alt or in_words(self)
        return {"text/plain": alt}, {"image/png": {"alt": alt}}

    def _repr_png_(self) -> bytes:  # the name IPython looks for
        buffer = io.BytesIO()
        self.canvas.print_png(buffer)
        return buffer.getvalue()


def encoded(*pictures: Picture) -> bytes:
    """A PNG of pictures of one height side by side; opaque, compressed little, because somebody waits for it."""
    for picture in pictures:
        picture.canvas.draw()
    pixels = np.hstack([np.asarray(picture.canvas.buffer_rgba()) for picture in pictures])
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


class TrainingFigure:
    """Two axes, loss and validation metric, whose artists are moved, not made anew, while a run goes on."""

    def __init__(self, metric: str, steps: int, width: float = 7.2) -> None:
        self.scale, self.steps = factor(metric), steps
        self.figure = Picture(figsize=(width, 3.4), dpi=130, layout="constrained", facecolor="white")
        self.loss_axes, self.metric_axes = self.figure.subplots(1, 2)
        validated = metric_name(f"validation_{metric}")
        for axes, name in ((self.loss_axes, "training loss (nats)"), (self.metric_axes, validated)):
            axes.set(xlabel="step", ylabel=name, xlim=(0, 1.02 * steps), facecolor="white")
            axes.grid(color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        (self.raw,) = self.loss_axes.plot([], [], color=BLUE, alpha=0.3, linewidth=0.8)
        (self.smooth,) = self.loss_axes.plot([], [], color=BLUE, linewidth=2, label="this run, smoothed")
        (self.points,) = self.metric_axes.plot(
            [], [], color=BLUE, marker="o", markersize=4, linewidth=2, label="this run"
        )
        self.guess = self.metric_axes.axhline(np.nan, color=RED, linestyle="--", linewidth=1.2, label="your guess")

    def add_earlier(self, earlier: Sequence[Curve]) -> None:
        """Draw finished runs behind the live one: told apart by line style as well as by colour."""
        styles = ((ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"), (GREY, (0, (5, 1, 1, 1))))
        for run, (colour, style) in zip(earlier, styles, strict=False):
            n = self.steps  # a longer run is drawn as far as this one goes, so that the scale is this one's
            self.loss_axes.plot(run.steps[:n], smoothed(run.losses)[:n], color=colour, linestyle=style, linewidth=1.2)
            xs, ys = _columns([point for point in run.validation if point[0] <= n])
            self.metric_axes.plot(
                xs, np.multiply(ys, self.scale), color=colour, linestyle=style, linewidth=1.2, label=run.label
            )

    def show(self, live: Curve, title: str, guess: float | None = None) -> None:
        """Move the live run's artists to its present state."""
        self.raw.set_data(live.steps, live.losses)
        self.smooth.set_data(live.steps, smoothed(live.losses))
        xs, ys = _columns(live.validation)
        self.points.set_data(xs, np.multiply(ys, self.scale))
        self.guess.set_ydata([np.nan if guess is None else guess * self.scale] * 2)
        for axes in (self.loss_axes, self.metric_axes):
            axes.relim()
            axes.autoscale_view(scalex=False)
        self._legend(guess is not None)
        self.figure.suptitle(title, fontsize=11)

    def _legend(self, with_guess: bool) -> None:
        handles, labels = self.metric_axes.get_legend_handles_labels()
        shown = [(h, name) for h, name in zip(handles, labels, strict=True) if with_guess or name != "your guess"]
        for old in list(self.figure.legends):
            old.remove()
        if len(shown) > 1:  # below the axes, where it can hide no curve
            self.figure.legend(
                *zip(*shown, strict=True), fontsize=8, loc="outside lower center", ncols=2, frameon=False
            )


def training_picture(live: Curve, metric: str, title: str, earlier: Sequence[Curve] = ()) -> Figure:
    """A finished run in one picture."""
    picture = TrainingFigure(metric, max(live.steps, default=1))
    picture.add_earlier(earlier)
    picture.show(live, title)
    return picture.figure


def smoothed(losses: Sequence[float], window: int = 25) -> np.ndarray:
    """The mean of the last `window` losses at each step: batches of 16 are noisy."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]

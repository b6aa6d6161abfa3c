"""Runs in, matplotlib `Figure` out: no pyplot, no global state, opaque faces that a dark theme leaves readable."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lora_lab.plots.described import in_words

# Okabe and Ito's colours, which the colour-blind tell apart; the lightest are darkened until a thin line in them is
# seen on white, even on a weak projector (contrast 3:1 and more; tests/plots/test_colours.py holds both).
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#CC8500", "#009E73", "#C04F00", "#CC79A7", "#666666"
SKY, BLACK = "#3399DD", "#000000"
PALE = "#949494"  # what stands behind: a reference
UNITS = {"accuracy": "validation accuracy (%)", "perplexity": "validation perplexity"}


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

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        alt = self.alt or in_words(self)
        return {"text/plain": alt}, {"image/png": {"alt": alt}}

    def _repr_png_(self) -> bytes:  # the name IPython looks for
        buffer = io.BytesIO()
        FigureCanvasAgg(self).print_png(buffer)
        return buffer.getvalue()


class TrainingFigure:
    """Two axes, loss and validation metric, whose artists are moved, not made anew, while a run goes on."""

    def __init__(self, metric: str, steps: int, width: float = 7.2) -> None:
        self.metric, self.scale, self.steps = metric, 100 if metric == "accuracy" else 1, steps
        self.figure = Picture(figsize=(width, 3.4), dpi=130, layout="constrained", facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.loss_axes, self.metric_axes = self.figure.subplots(1, 2)
        for axes, name in ((self.loss_axes, "training loss (nats)"), (self.metric_axes, UNITS[metric])):
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

    def png(self) -> bytes:
        """The picture as it is now; compressed little, because it is drawn several times a second."""
        buffer = io.BytesIO()
        self.canvas.print_png(buffer, pil_kwargs={"compress_level": 1})
        return buffer.getvalue()

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

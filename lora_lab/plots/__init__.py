"""Draw runs as matplotlib figures, without pyplot or global state, on opaque backgrounds that also suit dark themes."""

import io
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lora_lab.errors import printable
from lora_lab.metrics import factor
from lora_lab.metrics import metric as named_metric

# Okabe and Ito's colorblind-safe palette, with the lightest colors darkened so that thin lines are visible on white,
# even on a dim projector (contrast of at least 3:1; tests/plots/test_colors.py checks colors and contrast).
BLUE, ORANGE, GREEN, RED, PURPLE, GRAY = "#0072B2", "#CC8500", "#009E73", "#C04F00", "#CC79A7", "#666666"
SKY, BLACK = "#3399DD", "#000000"
COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, GRAY)


def metric_name(column: str) -> str:
    """Return the axis label of a metric column: "validation_accuracy" gives "validation accuracy (%)"."""
    return f"{'validation' if column.startswith('validation_') else 'test'} {named_metric(column).label}"


class Picture(Figure):
    """A figure that displays itself in a notebook; matplotlib's own figures need pyplot for that.

    alt     description stored next to the picture in a notebook file, and the picture's alt text on a web page; by
            default, the title
    """

    alt: str = ""
    canvas: FigureCanvasAgg

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        FigureCanvasAgg(self)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        alt = printable(" ".join((self.alt or self.get_suptitle()).split()))
        width, height = map(round, self.bbox.size)
        return {"text/plain": alt}, {"image/png": {"alt": alt, "width": width, "height": height}}

    def _repr_png_(self) -> bytes:  # the name IPython looks for
        buffer = io.BytesIO()
        self.savefig(buffer, dpi=2 * self.dpi)  # sharp on every screen
        return buffer.getvalue()


def new_axes(width: float, height: float, *grid: int, **options: Any) -> tuple[Picture, Any]:
    """Return a picture of this size in inches, and its axes; `grid` and options are those of `subplots`."""
    picture = Picture(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    return picture, picture.subplots(*grid, **options)


def tidy(axes: Any, grid: str = "both") -> None:
    """Set a white background and a pale grid behind the data, and remove the top and right spines."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#e9e9e9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def training_picture(history: dict[str, list[Any]], metric: str, title: str) -> Picture:
    """Draw the history of a finished run: its training loss and validation metric."""
    figure, (loss_axes, metric_axes) = new_axes(7.2, 3.4, 1, 2)
    figure.suptitle(title, fontsize=11)
    steps, losses = history["step"], history["loss"]
    for axes, name in ((loss_axes, "training loss (nats)"), (metric_axes, metric_name(f"validation_{metric}"))):
        axes.set(xlabel="step", ylabel=name, xlim=(0, 1.02 * max(steps, default=1)))
        tidy(axes)
    loss_axes.plot(steps, losses, color=BLUE, alpha=0.3, linewidth=0.8)
    smooth = pd.Series(losses, dtype=float).rolling(25, min_periods=1).mean()  # batches of 16 are noisy
    loss_axes.plot(steps, smooth, color=BLUE, linewidth=2)
    points = [(record["step"], factor(metric) * record[metric]) for record in history["validation"]]
    metric_axes.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=4, linewidth=2)
    return figure

"""The curves of the microscope: accuracy, and energy kept, against the rank that every matrix is cut to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.ticker import FixedLocator, NullLocator

from lora_course.experiments.microscope import Seen, Views
from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture
from lora_lab.plots.axes import new_axes, tidy
from lora_lab.plots.beside import titled

LOOKS = (
    ("#000000", "s", "-"),
    (BLUE, "o", "-"),
    (ORANGE, "^", "-"),
    (GREEN, "D", "--"),
    (RED, "v", "--"),
    (PURPLE, "P", "--"),
)
TICKS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 384)


def microscope_picture(views: Views, names: Sequence[str] = ()) -> Picture:
    """All that was seen, as two curves a specimen: accuracy and energy kept over the rank."""
    picture, (left, right) = new_axes(8.6, 3.8, 1, 2)
    shown = list(names or views.ranks)
    draw_accuracy(left, views, shown)
    draw_energy(right, views, shown)
    picture.legend(*left.get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    said = "; ".join(line for name in shown if (line := enough(views, name)))
    titled(picture, [said])
    picture.alt = f"Accuracy and energy kept against rank. {said}."
    return picture


def enough(views: Views, name: str, share: float = 0.9) -> str:
    """The smallest rank that keeps most of what the update gains, in words; empty while too little is seen.

    share   of the accuracy gained from rank 0 to full rank
    """
    none, whole = views.at(name, 0), views.whole(name)
    if none is None or whole is None:
        return ""
    low, high = views.accuracy(none), views.accuracy(whole)
    if high - low < 0.02:  # less than rows by the hundred can tell
        return f"{name} gains nothing ({low:.0%} to {high:.0%})"
    first = next(one for one in _in_order(views, name) if views.accuracy(one) >= low + share * (high - low))
    return f"{name}: rank {first.rank} has {share:.0%} of the gain, with {first.energy:.0%} of the energy"


def draw_accuracy(axes: Any, views: Views, names: Sequence[str]) -> None:
    """Accuracy over rank; the base with the trained head is the left end."""
    _draw(axes, views, names, lambda seen: 100 * views.accuracy(seen))
    axes.axhline(100 * _majority(views), color=GREY, linestyle=":", linewidth=1, label="the commoner class, always")
    axes.set(ylabel=f"accuracy (%), {len(views.sentences.texts)} sentences")


def draw_energy(axes: Any, views: Views, names: Sequence[str]) -> None:
    """The share of the update's sum of squares that is kept."""
    _draw(axes, views, names, lambda seen: 100 * seen.energy)
    axes.set(ylabel="energy kept (%)", ylim=(-3, 103))


def _draw(axes: Any, views: Views, names: Sequence[str], value: Callable[[Seen], float]) -> None:
    """A value over the rank, a line a specimen."""
    for name, (colour, marker, line) in _looks(views, names).items():
        seen = _in_order(views, name)
        ends = _extended(views, name, [one.rank for one in seen], [value(one) for one in seen])
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.3}
        axes.plot(*ends, linestyle=line, label=name, **style)
    axes.set(xlabel="rank that every matrix is cut to")
    _ranks(axes)
    axes.spines[["top", "right"]].set_visible(False)


def _looks(views: Views, names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """A specimen looks the same whichever others are shown."""
    all_of_them = {name: LOOKS[n % len(LOOKS)] for n, name in enumerate(views.ranks)}
    return {name: all_of_them[name] for name in names if views.seen.get(name)}


def _extended(views: Views, name: str, ranks: list[int], values: list[float]) -> tuple[list[int], list[float]]:
    """A specimen of low rank goes on as it is, once it is seen whole: cutting at more changes nothing."""
    goes_on = views.whole(name) is not None and ranks[-1] < TICKS[-1]
    return ([*ranks, TICKS[-1]], [*values, values[-1]]) if goes_on else (ranks, values)


def _ranks(axes: Any) -> None:
    axes.set_xscale("symlog", base=2, linthresh=1, linscale=0.7)
    axes.set_xlim(-0.15, 520)
    axes.xaxis.set_major_locator(FixedLocator(TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels(["" if rank == 256 else str(rank) for rank in TICKS])  # no room beside 384
    tidy(axes)
    axes.tick_params(labelsize=8)


def _majority(views: Views) -> float:
    labels = views.sentences.labels
    return float(max((labels == c).mean() for c in range(len(views.sentences.names))))


def _in_order(views: Views, name: str) -> list[Seen]:
    return [one for _, one in sorted(views.seen[name].items())]

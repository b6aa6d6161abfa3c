"""The curves of the microscope: accuracy, and energy kept, against the rank that every matrix is cut to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.ticker import FixedLocator, NullLocator

from lora_course.experiments.microscope import Seen, Views
from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture
from lora_lab.plots.beside import titled
from lora_lab.plots.compared import new_axes, tidy
from lora_lab.plots.sheet import Sheet

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


def draw_accuracy(axes: Any, views: Views, names: Sequence[str], rank: int | None = None, chosen: str = "") -> None:
    """Accuracy over rank; the base with the trained head is the left end. A ring marks a rank of the chosen one."""
    _draw(axes, views, names, lambda seen: 100 * views.accuracy(seen), rank, chosen)
    axes.axhline(100 * _majority(views), color=GREY, linestyle=":", linewidth=1, label="the commoner class, always")
    axes.set(ylabel=f"accuracy (%), {len(views.sentences.texts)} sentences")


def draw_energy(axes: Any, views: Views, names: Sequence[str], rank: int | None = None, chosen: str = "") -> None:
    """The share of the update's sum of squares that is kept."""
    _draw(axes, views, names, lambda seen: 100 * seen.energy, rank, chosen)
    axes.set(ylabel="energy kept (%)", ylim=(-3, 103))


def microscope_sheet() -> Sheet:
    """Where a panel paints both curves again and again."""
    return Sheet(8.6, 3.7, (0.075, 0.27, 0.39, 0.63), (0.57, 0.27, 0.39, 0.63))


def paint(sheet: Sheet, views: Views, rank: int, chosen: str) -> bytes:
    """The panel's picture: both curves with a ring at the present rank, as a PNG."""
    names, looks = list(views.ranks), sum(map(len, views.seen.values()))

    def left(axes: Any) -> None:
        draw_accuracy(axes, views, names, rank, chosen)
        axes.set_title("accuracy", fontsize=10)
        axes.legend(  # below, where it hides no curve
            fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(1.13, -0.18), ncols=3
        )

    def right(axes: Any) -> None:
        draw_energy(axes, views, names, rank, chosen)
        axes.set_title("energy kept", fontsize=10)

    return sheet.paint(looks, left, right)  # while nothing new is seen only lines and rings are drawn


def _draw(
    axes: Any, views: Views, names: Sequence[str], value: Callable[[Seen], float], rank: int | None, chosen: str
) -> None:
    """A value over the rank, a line a specimen."""
    for name, (colour, marker, line) in _looks(views, names).items():
        seen = _in_order(views, name)
        ends = _extended(views, name, [one.rank for one in seen], [value(one) for one in seen])
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 2.4 if name == chosen else 1.3}
        axes.plot(*ends, linestyle=line, label=name, **style)
    if rank is not None:
        _mark(axes, views.at(chosen, rank), rank, value)
    axes.set(xlabel="rank that every matrix is cut to")
    if axes.get_xscale() != "symlog":  # else the sheet has kept it
        _ranks(axes)
    axes.spines[["top", "right"]].set_visible(False)


def _looks(views: Views, names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    """A specimen looks the same whichever others are shown."""
    all_of_them = {name: LOOKS[n % len(LOOKS)] for n, name in enumerate(views.ranks)}
    return {name: all_of_them[name] for name in names if views.seen.get(name)}


def _mark(axes: Any, seen: Seen | None, rank: int, value: Callable[[Seen], float]) -> None:
    axes.axvline(rank, color=GREY, linewidth=0.8)
    if seen is not None:
        axes.plot(
            [rank], [value(seen)], "o", markersize=11, markerfacecolor="none", markeredgecolor=RED, markeredgewidth=2
        )


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

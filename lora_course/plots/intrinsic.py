"""Accuracy against the number of trained numbers d of a random subspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_course.experiments.intrinsic import ENOUGH, Point, intrinsic_dimension
from lora_lab.plots import BLUE, GREY, ORANGE, Picture
from lora_lab.plots.axes import new_axes, tidy
from lora_lab.plots.beside import titled


def intrinsic_picture(
    points: Sequence[Point],
    full: float,
    others: Mapping[str, tuple[int, float]],
    *,
    length: str = "",
    floors: Mapping[str, float] | None = None,
) -> Picture:
    """Test accuracy over d, smallest first; d = 0 is the head alone, at the left edge.

    full     full fine-tuning's accuracy, 0 to 1, drawn with the bar of 90 % of it
    length   of that run, for its name: "200 steps"
    others   (numbers that train, accuracy) of other methods by name, such as LoRA: crosses
    floors   accuracies that need no move of the model, by name, such as a probe's: dotted lines
    """
    picture, axes = new_axes(6.4, 3.9)
    ds, ys = [point.d for point in points], [100 * point.metrics["accuracy"] for point in points]
    axes.plot(ds, ys, "o-", color=BLUE, markersize=5, label="random subspace of d numbers, and the head")
    for name, (count, accuracy) in others.items():
        axes.plot([count], [100 * accuracy], "X", color=ORANGE, markersize=8, label=name)
    axes.axhline(100 * full, color="#000000", linewidth=1, label=", ".join(filter(None, ("full fine-tuning", length))))
    axes.axhline(100 * ENOUGH * full, color=GREY, linestyle="--", linewidth=1, label=f"{ENOUGH:.0%} of it")
    floors = floors or {}
    for (name, accuracy), style in zip(floors.items(), ("-.", ":"), strict=False):
        axes.axhline(100 * accuracy, color=GREY, linestyle=style, linewidth=1.2, label=name)
    axes.set_xscale("symlog", linthresh=10, linscale=0.5)
    axes.set(
        xlabel="d, numbers that move the layers (log; 0: the head alone)", ylabel="test accuracy (%)", xlim=(-1, None)
    )
    tidy(axes)
    axes.legend(fontsize=7, frameon=False, loc="lower right" if floors else "best", borderaxespad=0.2, labelspacing=0.3)
    found = intrinsic_dimension(points, full)
    tried = f"{min(ds):,} to {max(ds):,}"
    said = f"d = {found:,} is the first of {tried}" if found is not None else f"no d of {tried} is enough"
    titled(picture, [f"{ENOUGH:.0%} of full fine-tuning's accuracy: {said}"])
    told = [f"{d:,}: {y:.1f} %" for d, y in zip(ds, ys, strict=True)]
    told += [f"{name}: {100 * accuracy:.1f} %" for name, accuracy in floors.items()]
    picture.alt = f"Accuracy against d. {', '.join(told)}; {said}."
    return picture

"""A picture of what merging costs in a narrow dtype: rounding against the size of the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_lab.plots import BLUE, GREY, ORANGE, RED, Picture
from lora_lab.plots.axes import finish, new_axes

LOOKS = {"bf16": (RED, "o"), "fp16": (ORANGE, "s"), "fp32": (BLUE, "D")}


def rounding_picture(sizes: Sequence[float], lost: Mapping[str, Sequence[float]], own: float) -> Picture:
    """||rounding|| / ||update|| of each dtype against ||update|| / ||W||; `own` is the size that the adapter has."""
    picture, axes = new_axes(7.2, 3.8)
    for dtype, shares in lost.items():
        colour, marker = LOOKS[dtype]
        axes.plot(sizes, [100 * share for share in shares], color=colour, marker=marker, markersize=4, label=dtype)
    axes.axvline(own, color=GREY, linestyle="--", linewidth=1.2, label="this adapter")
    axes.set(xscale="log", yscale="log", xlabel="update / weight (norms)", ylabel="rounding (% of the update)")
    axes.axhline(100, color=GREY, linewidth=0.8)
    axes.legend(fontsize=8, frameon=False)
    smallest = min(sizes)
    at = {dtype: 100 * shares[list(sizes).index(smallest)] for dtype, shares in lost.items()}
    part = float(f"{1 / smallest:.2g}")
    said = ", ".join(f"{share:.2g} % in {dtype}" for dtype, share in at.items())
    finish(
        axes,
        f"The smaller an update, the more of it rounding takes: {said} at 1/{part:,.0f} of the weight",
        "The adapter's update of one matrix, scaled down step by step and merged; at 100 % nothing of it is left.",
    )
    picture.alt = f"Rounding against the size of the update, falling lines; at the smallest size {said}."
    return picture

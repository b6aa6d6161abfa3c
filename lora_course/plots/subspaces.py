"""What is inside dW: shared directions, singular values, amplification, intruders; chance beside each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from lora_course.experiments.subspace import Amplification, Intruders, expected_phi, spread_of_phi
from lora_lab.experiments.low_rank import rank_for_energy
from lora_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Picture
from lora_lab.plots.axes import new_axes, tidy
from lora_lab.plots.beside import titled

HEAT = LinearSegmentedColormap.from_list("heat", ["white", "#9ccbe8", BLUE, "#002b45"])
SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "white", BLUE])
LOOKS = ((BLUE, "o"), (RED, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"))
SIGMAS = 3  # standard deviations above chance that are called more than chance


def phi_maps(grids: Mapping[str, np.ndarray], d: int, sides: tuple[str, str] = ("i", "j")) -> Picture:
    """phi(i, j) of each named pair, a row each: measured, what chance gives, and what is left of it.

    grids   each (k1, k2), as `phi_grid` gives them, of directions in R^d
    sides   what i and j count
    """
    picture, rows = new_axes(8.6, 0.9 + 1.75 * len(grids), len(grids), 3, squeeze=False)
    for axes, (name, grid) in zip(rows, grids.items(), strict=True):
        chance = expected_phi(d, *grid.shape)
        _heat(picture, axes[0], grid, f"{name}: phi", HEAT, 0, 1)
        _heat(picture, axes[1], chance, f"chance: max(i, j) / {d}", HEAT, 0, 1)
        _heat(picture, axes[2], grid - chance, "phi - chance", SIGNED, -1, 1)
        axes[0].set_ylabel(sides[0], fontsize=8)
    for axes in rows[-1]:
        axes.set_xlabel(sides[1], fontsize=8)
    said = [f"{name}: {shared_words(grid, d)}" for name, grid in grids.items()]
    titled(picture, said)
    picture.alt = f"Heat maps of phi, of its chance level and of the difference. {'; '.join(said)}."
    return picture


def shared_words(grid: np.ndarray, d: int) -> str:
    """A grid in a sentence: its first entry and its last, each with what chance gives, and how far it lies above."""
    (first, last), (low, high) = (_ends(one) for one in (grid, expected_phi(d, *grid.shape)))
    sigma = _ends(spread_of_phi(d, *grid.shape))[1]
    size = f"{grid.shape[0]} in {grid.shape[1]}"
    above = "more than chance" if last > high + SIGMAS * sigma else "no more than chance"
    return f"strongest with strongest {first:.2f} (chance {low:.3f}), {size} {last:.2f} (chance {high:.2f}): {above}"


def spectra(values: Mapping[str, np.ndarray], chance: np.ndarray) -> Picture:
    """Singular values of some updates, each over its own norm, and how fast their energy adds up.

    values   by name, largest first; chance: those of a random matrix of that shape
    """
    picture, (left, right) = new_axes(8.6, 3.4, 1, 2)
    drawn = {**values, "random, equal norm": chance}
    for place, (name, s) in enumerate(drawn.items()):
        last = place == len(drawn) - 1
        style = {"color": GREY, "linestyle": "--"} if last else {"color": LOOKS[place % 5][0]}
        acting = s[s > 1e-6 * s[0]]
        count = np.arange(1, len(acting) + 1)
        marks = {"marker": LOOKS[place % 5][1], "markersize": 3, "markevery": _every(len(acting))} if not last else {}
        left.loglog(count, acting / np.linalg.norm(s), linewidth=1.8, label=name, **style, **marks)
        energy = 100 * np.cumsum(np.square(acting)) / np.square(s).sum()
        right.semilogx(count, energy, linewidth=1.8, label=name, **style, **marks)
    left.set(xlabel="number of the singular value", ylabel="singular value / ||dW||")
    right.set(xlabel="rank r", ylabel="energy kept (%)", ylim=(0, 103))
    for axes in (left, right):
        _small(axes)
    right.legend(fontsize=8, frameon=False, loc="lower right")
    said = ", ".join(f"{name}: {rank_for_energy(s, 0.9)}" for name, s in drawn.items())
    titled(picture, [f"Directions for 90 % of the energy: {said}"])
    picture.alt = f"Spectra of updates and of a random matrix. Directions for 90 % of the energy: {said}."
    return picture


def amplification_bars(found: Mapping[str, Amplification]) -> Picture:
    """Table 7 as bars: how much of W lies in the directions of dW, in W's own strongest, in random ones.

    found   by what stands below the bars
    """
    picture, axes = new_axes(1.8 + 1.5 * len(found), 3.9)
    at = np.arange(len(found))
    bars = (
        ("in_weight", "W's own strongest", GREY, ".."),
        ("in_update", "dW's", BLUE, ""),
        ("in_random", "random (mean square)", ORANGE, "//"),
    )
    for shift, (field, name, colour, hatch) in zip((-0.27, 0, 0.27), bars, strict=True):
        heights = [getattr(one, field) for one in found.values()]
        axes.bar(at + shift, heights, 0.25, color=colour, hatch=hatch, edgecolor="white", label=name)
    axes.plot(at, [one.update for one in found.values()], "D", color=RED, markersize=6, label="||dW|| itself")
    axes.set_yscale("log")
    axes.set_xticks(
        at, [f"{name}\n{_times(one.factor)} x (chance {_times(one.random_factor)} x)" for name, one in found.items()]
    )
    axes.set(ylabel="||U$^T$ W V||  (Frobenius norm)")
    _small(axes, "y")
    axes.set_ylim(top=axes.get_ylim()[1] * 8)  # room for the legend
    axes.legend(fontsize=8, frameon=False, loc="upper center", ncols=2, title="directions U, V", title_fontsize=8)
    said = ", ".join(
        f"{name}: {_times(one.factor)} times (chance {_times(one.random_factor)})" for name, one in found.items()
    )
    more = sum(one.in_update > one.in_random for one in found.values())
    finding = f"W has more in dW's directions than in random ones in {more} of {len(found)} cases, most in its own"
    titled(picture, [finding])
    picture.alt = f"{finding}. Bars of ||U^T W V||. Amplification: {said}."
    return picture


def intruder_dots(found: Mapping[str, Sequence[Intruders]]) -> Picture:
    """How well W knew the strongest directions of W + dW: largest cosine of each, over its number; one dot a matrix.

    found   by name, the last being chance: a random update of equal norm
    """
    picture, (places,) = new_axes(1.2 + 2.3 * len(found), 3.3, 1, len(found), sharey=True, squeeze=False)
    for axes, (place, (name, several)) in zip(places, enumerate(found.items()), strict=True):
        colour, marker = LOOKS[place % 5]
        for one in several:
            axes.plot(np.arange(1, len(one.cosines) + 1), one.cosines, marker, color=colour, markersize=4, alpha=0.55)
        axes.axhline(several[0].threshold, color="#222222", linestyle="--", linewidth=1)
        axes.set_title(f"{name}: {_counted(several)}", fontsize=9)
        axes.set(xlabel="number of the singular vector", ylim=(0, 1.03))
        _small(axes)
    places[0].set_ylabel("largest |cosine| with one of W's", fontsize=8)
    said = "; ".join(f"{name}: {_counted(several)}" for name, several in found.items())
    threshold = next(iter(found.values()))[0].threshold
    titled(picture, [f"Intruders (below {threshold:g}) among the strongest directions of W + dW: {said}"])
    picture.alt = f"Largest cosines by number of the singular vector. Intruders below {threshold:g}: {said}."
    return picture


def _counted(several: Sequence[Intruders]) -> str:
    return f"{sum(one.count for one in several)} of {sum(len(one.cosines) for one in several)}"


def _times(factor: float) -> str:
    """Two digits, without powers of ten."""
    return f"{factor:.2g}" if factor < 100 else f"{factor:,.0f}"


def _heat(picture: Picture, axes: Any, grid: np.ndarray, title: str, colours: Any, low: float, high: float) -> None:
    k1, k2 = grid.shape
    shown = axes.imshow(
        grid,
        cmap=colours,
        vmin=low,
        vmax=high,
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, k2 + 0.5, k1 + 0.5, 0.5),
    )
    axes.set_title(title, fontsize=9)
    axes.set_xticks(sorted({1, *(n for n in (8, 16, 32, 64, 128) if n <= k2), k2}))
    axes.set_yticks(sorted({1, max(1, k1 // 2), k1}))
    axes.tick_params(labelsize=7)
    picture.colorbar(shown, ax=axes, pad=0.02).ax.tick_params(labelsize=7)


def _ends(grid: np.ndarray) -> tuple[float, float]:
    return float(grid[0, 0]), float(grid[-1, -1])


def _every(count: int) -> list[int]:
    """Marks at doubling places, so that a log axis has them evenly."""
    return [2**n - 1 for n in range(10) if 2**n <= count]


def _small(axes: Any, grid: str = "both") -> None:
    tidy(axes, grid)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)

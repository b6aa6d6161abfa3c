"""Figure 3: do rank 8 and rank 64 find the same directions?

phi(i, j)    of the first i directions of rank 8 and the first j of rank 64, minus what chance gives: max(i, j) / d
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lora_course.experiments.subspace import directions, expected_phi, phi_grid, random_directions
from lora_course.experiments.updates import Update
from lora_course.paper.reproduce.base import Judged, Kept, Row, in_every
from lora_course.paper.reproduce.subspaces import TOO_FEW, Subspaces, Updates, over_layers
from lora_course.paper.reproduce.trained import SEEN

RANDOM, DRAWS = "random, phi(8, 8)", 5  # pairs of random subspaces that are shown beside
HALF = 0.5  # what the paper calls overlap of the first direction
LOOKS: Mapping[str, Callable[[Update], np.ndarray]] = {
    "BA": lambda update: update.factors.right,
    "A": lambda update: directions(update.a),
}
CELLS = ((1, 1), (8, 8), (8, 64))
Cell = tuple[int, int]
Layers = Mapping[str, Update]  # by the layer's name
Measured = Mapping[tuple[str, str, Cell], list[float]]  # (BA or A, q or v, (i, j)): excess of each seed


class BetweenRanks(Subspaces):
    name = "fig3"
    title = "Directions shared by rank 8 and rank 64: q and v of minilm on rt"
    finding = "Rank 8 and rank 64 share their first direction (phi above 0.5), and not the first eight."
    rule = (
        f"Tested if {SEEN}. In a pair of runs, by phi of the row spaces of B A minus chance, mean over layers, for q "
        f"and for v: phi(1, 1) is above 0.5 and phi(8, 8) below. Holds if this is true in every one of at least "
        f"{TOO_FEW} pairs, fails if it is true in none, else undecided."
    )
    limits = (
        "Width 384 in place of 12,288: by chance alone phi(8, 64) is 64 / 384 = 0.17 here and 0.005 there, so chance "
        "is taken off everywhere. Rank 8 of one seed is held against rank 64 of the next, for A of equal seeds may "
        "start alike. The rows of A alone are shown, too, as in the paper: they may still lie near where they "
        "started."
    )
    axis = "phi minus chance (0 is chance)"
    line = 0.0

    def rows(self, found: Updates) -> list[Row]:  # type: ignore[override]
        measured = shared(found["rank 8"], found["rank 64"], CELLS)
        return [*rows_of(measured, self.axis), chance(found, self.axis)]

    def judge(self, kept: Kept) -> Judged:
        first, rest = (np.array([kept.rows[f"BA of {role}, phi({i}, {i})"] for role in "qv"]) for i in (1, 8))
        so = np.all((first > HALF) & (rest < HALF), axis=0)
        return in_every(list(so), TOO_FEW, "phi(1, 1) above 0.5 and phi(8, 8) below it, in q and in v")

    def published(self, table: Any) -> Mapping[str, str]:
        first = {role: table.row(weights=f"W{role}", directions="the first")["phi"] for role in "qv"}
        rest = {role: table.row(weights=f"W{role}", directions="the others")["phi"] for role in "qv"}
        return {f"A of {r}, phi(1, 1)": first[r] for r in "qv"} | {f"A of {r}, phi(8, 8)": rest[r] for r in "qv"}


def shared(first: Sequence[Layers], second: Sequence[Layers], cells: Sequence[Cell]) -> Measured:
    """phi minus chance of runs of one seed against runs of the next, mean over layers: of each pair of seeds."""
    pairs = [(first[n], second[(n + 1) % len(second)]) for n in range(len(first))] if len(second) > 1 else []
    places = [(what, role, cell) for what in LOOKS for role in "qv" for cell in cells]
    return {place: [_between(a, b, *place) for a, b in pairs] for place in places}


def rows_of(measured: Measured, axis: str) -> list[Row]:
    """A row for each: "BA of q, phi(8, 8)"."""
    names = {place: f"{place[0]} of {place[1]}, phi({place[2][0]}, {place[2][1]})" for place in measured}
    return [Row(names[place], tuple(own), axis) for place, own in measured.items()]


def chance(found: Updates, axis: str) -> Row:
    """phi(8, 8) of pairs of random subspaces, minus its mean: the baseline."""
    width = next(iter(found["rank 64"][0].values())).weight.shape[1]
    k = min(8, width)
    drawn = [(random_directions(width, k, 2 * n), random_directions(width, k, 2 * n + 1)) for n in range(DRAWS)]
    return Row(RANDOM, tuple(float(phi_grid(a, b)[-1, -1] - k / width) for a, b in drawn), axis)


def _between(a: Layers, b: Layers, what: str, role: str, cell: Cell) -> float:
    look = LOOKS[what]
    return over_layers(a, role, lambda name: _excess(look(a[name]), look(b[name]), *cell))


def _excess(first: np.ndarray, second: np.ndarray, i: int, j: int) -> float:
    """phi(i, j) minus its mean by chance; of a smaller matrix its last directions."""
    i, j = min(i, first.shape[1]), min(j, second.shape[1])
    chance = expected_phi(first.shape[0], i, j)[-1, -1]
    return float(phi_grid(first[:, :i], second[:, :j])[-1, -1] - chance)


ITEM = BetweenRanks()

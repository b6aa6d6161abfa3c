"""What is inside the updates of runs, matrix by matrix: sizes, shared directions, amplification, intruders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lora_course.experiments.subspace import (
    Amplification,
    Intruders,
    amplification,
    directions,
    expected_phi,
    intruders,
    phi_grid,
    random_like,
    spread_of_phi,
)
from lora_course.experiments.updates import Update
from lora_lab.errors import BadValue
from lora_lab.experiments.low_rank import rank_for_energy

Updates = Mapping[str, Update]
Grids = dict[str, np.ndarray]


def sizes(updates: Updates) -> pd.DataFrame:
    """A row a matrix: ||dW||, ||dW|| / ||W||, stable and effective rank, directions for 90 % of the energy."""
    return pd.DataFrame(
        [
            {
                "matrix": name,
                "norm": one.factors.norm,
                "relative": one.relative,
                "stable_rank": one.factors.stable_rank,
                "effective_rank": one.factors.effective_rank,
                "rank_for_90": rank_for_energy(one.factors.values, 0.9),
                "of": len(one.factors.values),
            }
            for name, one in updates.items()
        ]
    )


def shared_a(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> Grids:
    """phi over all i, j of the matrices A of two runs, for each layer that both have. Raises: BadValue for none."""
    return {name: phi_grid(directions(first[name]), directions(second[name])) for name in _common(first, second)}


def shared_rows(first: Updates, second: Updates) -> Grids:
    """The same of the row spaces of B A: the inputs that an update listens to, by how strongly it answers.

    A alone may be near its random start; what B makes nothing of stands last here.
    """
    rows = {name: (first[name].factors.right, second[name].factors.right) for name in _common(first, second)}
    return {name: phi_grid(*pair) for name, pair in rows.items()}


def above_chance(grid: np.ndarray, d: int, i: int, j: int) -> float:
    """How many standard deviations of chance a grid's phi(i, j) lies above the mean of chance."""
    k1, k2 = grid.shape
    mean, spread = expected_phi(d, k1, k2), spread_of_phi(d, k1, k2)
    return float((grid[i - 1, j - 1] - mean[i - 1, j - 1]) / spread[i - 1, j - 1])


def amplified(updates: Updates, rank: int) -> dict[str, Amplification]:
    """Table 7 of each matrix, at a rank."""
    return {name: amplification(one.weight, one.factors, rank) for name, one in updates.items()}


def intruding(updates: Updates, *, by_chance: bool = False) -> dict[str, Intruders]:
    """Intruders of W + dW in each matrix; by chance, with Gaussian numbers of dW's norm in the place of dW."""
    added = {name: random_like(one.matrix) if by_chance else one.matrix for name, one in updates.items()}
    return {name: intruders(one.weight, added[name]) for name, one in updates.items()}


def _common(first: Mapping[str, object], second: Mapping[str, object]) -> list[str]:
    names = [name for name in first if name in second]
    if not names:
        raise BadValue("the two runs have no adapted layer in common: compare runs with the same targets")
    return names

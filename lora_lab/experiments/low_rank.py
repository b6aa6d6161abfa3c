"""Measure how much of a matrix its rank-r approximation keeps, from its singular values.

    W = s_1 u_1 v_1^T + s_2 u_2 v_2^T + ...        s_1 >= s_2 >= ... >= 0, the singular values

The energy of W is the sum of its squared entries and equals the sum of all s_i^2. The first r terms are the best rank-r
approximation, whose squared error is the energy of the other terms (Eckart and Young, 1936, Psychometrika 1, 211-218).
"""

import numpy as np

from lora_lab.errors import BadValue


def decompose(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return u, s, vt with W = U diag(s) V^T. Shapes: (m, n) -> (m, k), (k,) descending, (k, n), with k = min(m, n).

    Raises: BadValue for an array that isn't a matrix, or has numbers that aren't finite.
    """
    return np.linalg.svd(_checked(matrix), full_matrices=False)


def spectrum(matrix: np.ndarray) -> np.ndarray:
    """Return the min(m, n) singular values, largest first. Raises: see `decompose`."""
    return np.linalg.svd(_checked(matrix), compute_uv=False)


def truncated(u: np.ndarray, s: np.ndarray, vt: np.ndarray, rank: int) -> np.ndarray:
    """Return the best rank-r approximation (m, n), the sum over i <= r of s_i u_i v_i^T. Raises: see `energy_kept`."""
    energy_kept(s, rank)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def energy_kept(s: np.ndarray, rank: int) -> float:
    """Return the fraction of the energy in the first r terms, 0 to 1. Raises: BadValue for an invalid rank."""
    if not 0 <= rank <= len(s):
        raise BadValue(f"rank must be from 0 to {len(s)} for this matrix, not {rank}")
    return float(_energies(s)[rank])


def rank_for_energy(s: np.ndarray, share: float) -> int:
    """Return the lowest rank that keeps this fraction of the energy. Raises: BadValue for a fraction outside 0 to 1."""
    if not 0 <= share <= 1:
        raise BadValue(f"the fraction of energy must be between 0 and 1, not {share:g}; for 90%, use 0.9")
    return int(np.argmax(_energies(s) >= share - 1e-12))  # rounding may leave the sum of all fractions just below 1


def shuffled(matrix: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a matrix's entries in random order, with the same energy: a baseline for claims that its rank is low."""
    return np.random.default_rng(seed).permutation(np.ravel(matrix)).reshape(np.shape(matrix))


def _energies(s: np.ndarray) -> np.ndarray:
    """Return the fractions of the energy kept at ranks 0, 1, ..., k."""
    sums = np.cumsum([0.0, *np.square(s, dtype=float)])
    return sums / sums[-1] if sums[-1] else np.ones_like(sums)


def _checked(matrix: np.ndarray) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or not matrix.size:
        raise BadValue(f"a matrix needs two dimensions and at least one entry, but the shape is {matrix.shape}")
    if not np.isfinite(np.square(matrix, dtype=float).sum()):
        raise BadValue("pass a matrix of finite numbers whose squares are finite; see np.abs(matrix).max()")
    return matrix.astype(np.float32) if matrix.dtype == np.float16 else matrix  # LAPACK has no float16

"""Which directions a matrix acts along, and how far two matrices share them. Plain numpy, and exact.

    phi(A1, A2, i, j) = ||U1[:, :i]^T U2[:, :j]||_F^2 / min(i, j)        0: nothing shared, 1: one holds the other

U1 and U2 hold, as columns, the right-singular vectors of A1 (r1, d) and A2 (r2, d): vectors of the layer's input space.
With p = min(i, j) and the singular values s_1..s_p of that product, phi = (s_1^2 + ... + s_p^2) / p = 1 - D^2 / p, with
D^2 = p - sum s^2 the squared projection distance of two subspaces of one size. Source: Hu et al. 2021, sections 7.2 and
G. The appendix prints phi = (1/p)(1 - D^2), which its own D contradicts; and it says *left*-singular where section 7.2
says *right*: of A, which is (r, d), the vectors in R^d are the right ones.

By chance alone phi is max(i, j) / d: 64 / 12,288 = 0.5 % for GPT-3, but 64 / 384 = 17 % for a small model. So every
picture of phi is held against `expected_phi`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_lab.errors import BadValue
from lora_lab.experiments.low_rank import decompose, spectrum

INTRUDER = 0.6  # a singular vector is an intruder when no cosine with the old ones reaches this
TOP = 10  # of the tuned matrix's singular vectors are looked at: further down neighbours mix whatever one adds


@dataclass(frozen=True)
class Factors:
    """A matrix M = left diag(values) right^T, strongest direction first.

    Shapes: left (m, k), values (k,) falling, right (n, k); the columns of left and of right are orthonormal.
    """

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray

    @property
    def norm(self) -> float:
        """The Frobenius norm."""
        return float(np.linalg.norm(self.values))

    @property
    def stable_rank(self) -> float:
        """||M||_F^2 / ||M||_2^2: 1 where one direction has all the energy, k where k share it equally."""
        return float(np.square(self.values / self.values[0]).sum()) if self._acts else 0.0

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the singular values' shares of their sum: Roy and Vetterli 2007 (not read here)."""
        if not self._acts:
            return 0.0
        shares = self.values[self.values > 0] / self.values.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    def cut(self, rank: int) -> np.ndarray:
        """The best matrix of such a rank, shape (m, n); of a rank above k, the matrix itself."""
        return (self.left[:, :rank] * self.values[:rank]) @ self.right[:, :rank].T

    @property
    def _acts(self) -> bool:
        return bool(len(self.values) and self.values[0] > 0)


def factors(matrix: Any) -> Factors:
    """The singular value decomposition of a matrix (m, n): an array or a tensor, k = min(m, n). Raises: BadValue."""
    left, values, right = decompose(_array(matrix))
    return Factors(left, values, right.T)


def product_factors(b: Any, a: Any, scaling: float = 1.0) -> Factors:
    """Those of scaling * B A with B (m, r), A (r, n), by way of r x r: the (m, n) product is never formed, k = r.

    B = Q_b R_b and A^T = Q_a R_a, so the singular values of B A are those of R_b R_a^T. Raises: BadValue for shapes
    that do not fit.
    """
    b, a = _array(b), _array(a)
    if b.shape[1] != a.shape[0]:
        raise BadValue(f"B {b.shape} and A {a.shape} do not fit: the rank is B's second size and A's first")
    (q_b, r_b), (q_a, r_a) = np.linalg.qr(b), np.linalg.qr(a.T)
    core = factors(scaling * r_b @ r_a.T)
    return Factors(q_b @ core.left, core.values, q_a @ core.right)


# ---- subspaces


def directions(a: Any) -> np.ndarray:
    """The right-singular vectors of A (r, d) as columns, (d, min(r, d)), strongest first."""
    return factors(a).right


def phi_grid(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """phi of all leading parts of two sets of orthonormal columns, (d, k1) and (d, k2).

    Entry [i - 1, j - 1] of the result (k1, k2) is phi of the first i and the first j of them: one product, two running
    sums. For A give `directions(A)`; for the row space of B A `product_factors(B, A).right`.
    Raises: BadValue for columns of different lengths.
    """
    if first.shape[0] != second.shape[0]:
        raise BadValue(f"directions of {first.shape[0]} and of {second.shape[0]} numbers live in different spaces")
    shared = np.square(first.T @ second).cumsum(0).cumsum(1)
    return shared / np.minimum(*_counts(*shared.shape))


def expected_phi(d: int, k1: int, k2: int) -> np.ndarray:
    """The mean of phi for subspaces of R^d that know nothing of each other, a grid (k1, k2): max(i, j) / d.

    A unit vector's mean share inside a random subspace of j dimensions is j / d, so i of them give i j / d in the sum
    of squares, which phi divides by min(i, j). One of the two being random is enough.
    """
    i, j = _counts(k1, k2)
    return np.maximum(i, j) / d


def spread_of_phi(d: int, k1: int, k2: int) -> np.ndarray:
    """The standard deviation of the same, a grid (k1, k2).

    Of tr(P Q) for random projections onto i and j dimensions the variance is
    2 i j (d - i)(d - j) / (d^2 (d - 1)(d + 2)), from the second moments of a random rotation (checked by simulation in
    the tests); phi divides tr(P Q) by min(i, j).
    """
    i, j = _counts(k1, k2)
    return np.sqrt(2 * i * j * (d - i) * (d - j) / (d * d * (d - 1) * (d + 2))) / np.minimum(i, j)


def random_directions(d: int, k: int, seed: int = 0) -> np.ndarray:
    """k orthonormal columns (d, k) that span a subspace drawn uniformly: those of a Gaussian matrix."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0]


# ---- what an update does to its weight


@dataclass(frozen=True)
class Amplification:
    """How much of W lies in the r strongest directions of dW, beside W's own strongest r and random ones (Table 7).

    update    ||dW||_F
    weight    ||W||_F
    in_update, in_weight, in_random   ||U^T W V||_F with U, V of dW, of W, of a random matrix
    """

    rank: int
    update: float
    weight: float
    in_update: float
    in_weight: float
    in_random: float

    @property
    def factor(self) -> float:
        """||dW||_F / ||U^T W V||_F: how many times larger the update is than what W already had in its directions."""
        return self.update / self.in_update

    @property
    def random_factor(self) -> float:
        """What the same update would score if its directions were drawn by chance: the baseline of `factor`."""
        return self.update / self.in_random


def amplification(weight: Any, update: Factors, rank: int) -> Amplification:
    """Of an update with the given factors beside its weight (m, n).

    The random entry is the root of the mean square over all random U and V, ||W||_F r / sqrt(m n): it gives the 0.02
    and 0.33 of Table 7. Source: Hu et al. 2021, section 7.3; V is (n, r), so the paper's U^T W V^T is U^T W V here.
    Raises: BadValue for a rank that the update has not.
    """
    w = _array(weight)
    if not 1 <= rank <= len(update.values):
        raise BadValue(f"rank {rank} cannot be: this update has 1 to {len(update.values)} directions")
    norm = float(np.linalg.norm(w))
    held = float(np.linalg.norm(update.left[:, :rank].T @ w @ update.right[:, :rank]))
    own = float(np.linalg.norm(spectrum(w)[:rank]))
    return Amplification(rank, update.norm, norm, held, own, norm * rank / float(np.sqrt(w.size)))


@dataclass(frozen=True)
class Intruders:
    """How well each of the tuned matrix's strongest directions was known to W: its largest cosine with W's own.

    cosines    (k,) between 0 and 1, of the tuned matrix's strongest direction first
    """

    cosines: np.ndarray
    threshold: float

    @property
    def count(self) -> int:
        """How many are intruders: below the threshold."""
        return int((self.cosines < self.threshold).sum())


def intruders(weight: Any, update: Any, *, top: int = TOP, threshold: float = INTRUDER) -> Intruders:
    """Of W + dW, both (m, n): |cosine| of each of its `top` left-singular vectors with the nearest of W's.

    Two directions of nearly one singular value may turn into each other for next to nothing, so a low cosine is no
    proof of something new: compare with a random update of equal norm (`random_like`).
    Source: Shuttleworth et al. 2024, "LoRA vs Full Fine-tuning: An Illusion of Equivalence", for the idea; the
    threshold is a choice, and the cosines come with the answer.
    Raises: BadValue for shapes that differ, or a top of none.
    """
    w, dw = _array(weight), _array(update)
    if w.shape != dw.shape:
        raise BadValue(f"the weight {w.shape} and the update {dw.shape} have different shapes")
    if not 1 <= top <= min(w.shape):
        raise BadValue(f"top must be 1 to {min(w.shape)} for a matrix of {w.shape}, not {top}")
    old, new = factors(w).left, factors(w + dw).left[:, :top]
    return Intruders(np.abs(old.T @ new).max(0), threshold)


def random_like(update: Any, seed: int = 0) -> np.ndarray:
    """Gaussian numbers of the update's shape and Frobenius norm: as large, and without any aim."""
    dw = _array(update)
    noise = np.random.default_rng(seed).standard_normal(dw.shape)
    return noise * (np.linalg.norm(dw) / np.linalg.norm(noise))


def _array(matrix: Any) -> np.ndarray:
    """Double precision, from an array or a tensor."""
    if hasattr(matrix, "detach"):
        matrix = matrix.detach().cpu().double().numpy()
    array = np.asarray(matrix, dtype=float)
    if array.ndim != 2:
        raise BadValue(f"a matrix has rows and columns; this has the shape {array.shape}")
    return array


def _counts(k1: int, k2: int) -> tuple[np.ndarray, np.ndarray]:
    """i as a column and j as a row, from 1."""
    return np.arange(1, k1 + 1)[:, None], np.arange(1, k2 + 1)[None, :]

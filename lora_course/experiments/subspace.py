"""The directions that a matrix acts along, and how much two matrices share them.

    phi(i, j) = ||U1[:, :i]^T U2[:, :j]||_F^2 / min(i, j)     0: orthogonal, 1: one subspace contains the other

The columns of U1 and U2 are the right-singular vectors of A1 (r1, d) and A2 (r2, d). Source: Hu et al. 2021, sections
7.2 and G. The appendix prints phi = (1/p)(1 - D^2), but its own definition of D gives 1 - D^2 / p; it also says
*left*-singular where section 7.2 says *right*: A is (r, d), so its vectors in R^d are the right-singular ones.

By chance alone, phi is max(i, j) / d: 64 / 12,288 = 0.5% for GPT-3, but 64 / 384 = 17% for a small model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import nn

from lora_lab.errors import BadValue
from lora_lab.experiments.low_rank import decompose, spectrum
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, plain_path
from lora_lab.training.runs import Run
from lora_lab.training.train import open_adapter


@dataclass(frozen=True)
class Factors:
    """A matrix M = left diag(values) right^T, strongest direction first.

    Shapes: left (m, k), values (k,) descending, right (n, k); the columns of left and of right are orthonormal.
    """

    left: np.ndarray
    values: np.ndarray
    right: np.ndarray

    @property
    def norm(self) -> float:
        """The Frobenius norm."""
        return float(np.linalg.norm(self.values))


def product_factors(b: np.ndarray, a: np.ndarray, scaling: float = 1.0) -> Factors:
    """Return the factors of scaling * B A, for B (m, r) and A (r, n), without forming the (m, n) product; k = r.

    B = Q_b R_b and A^T = Q_a R_a, so the singular values of B A are those of R_b R_a^T.
    """
    (q_b, r_b), (q_a, r_a) = np.linalg.qr(b), np.linalg.qr(a.T)
    u, values, vt = decompose(scaling * r_b @ r_a.T)
    return Factors(q_b @ u, values, q_a @ vt.T)


def directions(a: np.ndarray) -> np.ndarray:
    """Return the right-singular vectors of A (r, d) as columns, (d, min(r, d)), strongest first."""
    return decompose(a)[2].T


def phi_grid(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return phi(i, j) at [i - 1, j - 1], for two sets of orthonormal columns, (d, k1) and (d, k2).

    For A, pass `directions(A)`; for the rows of B A, `product_factors(B, A).right`. Raises: BadValue if d differs.
    """
    if first.shape[0] != second.shape[0]:
        raise BadValue(f"vectors of length {first.shape[0]} and {second.shape[0]} live in different spaces")
    shared = np.square(first.T @ second).cumsum(0).cumsum(1)
    return shared / np.minimum(*np.indices(shared.shape) + 1)


def expected_phi(d: int, k1: int, k2: int) -> np.ndarray:
    """Return the mean of phi for unrelated subspaces of R^d, a grid (k1, k2): max(i, j) / d.

    The expected squared projection of a unit vector onto a random j-dimensional subspace is j / d. For i of them the
    sum is i j / d, which phi divides by min(i, j). Only one of the two subspaces needs to be random.
    """
    return np.maximum(*np.indices((k1, k2)) + 1) / d


def random_directions(d: int, k: int, seed: int = 0) -> np.ndarray:
    """Return k orthonormal columns (d, k) that span a random subspace, that of a Gaussian matrix."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0]


@dataclass(frozen=True)
class Amplification:
    """How much of W lies in the r strongest directions of dW, compared with W's own and with random ones (Table 7).

    update    ||dW||_F
    in_update, in_weight, in_random   ||U^T W V||_F with U and V from dW, W, and a random matrix
    """

    update: float
    in_update: float
    in_weight: float
    in_random: float

    @property
    def factor(self) -> float:
        """||dW||_F / ||U^T W V||_F: how many times larger the update is than W in the update's directions."""
        return self.update / self.in_update


def amplification(weight: np.ndarray, update: Factors, rank: int) -> Amplification:
    """Return the Table 7 entries of an update, given by its factors, and its weight (m, n).

    The random entry is the root mean square over all random U and V, ||W||_F r / sqrt(m n): it gives the 0.02 and
    0.33 of Table 7. Source: Hu et al. 2021, section 7.3; V is (n, r) here, so the paper's U^T W V^T is U^T W V.
    Raises: BadValue for a rank that the update doesn't have.
    """
    if not 1 <= rank <= len(update.values):
        raise BadValue(f"rank {rank} is not possible: this update has 1 to {len(update.values)} directions")
    norm = float(np.linalg.norm(weight))
    in_update = float(np.linalg.norm(update.left[:, :rank].T @ weight @ update.right[:, :rank]))
    in_weight = float(np.linalg.norm(spectrum(weight)[:rank]))
    return Amplification(update.norm, in_update, in_weight, norm * rank / float(np.sqrt(weight.size)))


class Update(NamedTuple):
    """One matrix before training, and LoRA's update of it.

    weight    W (out, in)
    factors   of dW, strongest first; their number is the rank
    a         lora_A (rank, in)
    """

    weight: np.ndarray
    factors: Factors
    a: np.ndarray


def updates_in(model: nn.Module) -> dict[str, Update]:
    """Return the update of every LoRA layer on a linear one, dW = scaling * B A."""
    updates: dict[str, Update] = {}
    for path, layer in adapter_layers(model):
        if isinstance(layer, LoRALinear):
            tensors = (layer.lora_A, layer.lora_B, layer.frozen_weight())
            a, b, weight = (tensor.detach().cpu().double().numpy() for tensor in tensors)
            updates[plain_path(path)] = Update(weight, product_factors(b, a, layer.scaling), a)
    return updates


def updates_of(run: Run) -> dict[str, Update]:
    """Return the updates of a finished run, from its folder, in fp32."""
    assert run.adapter is not None
    opened = open_adapter(run.adapter, run.recipe.task, model=run.recipe.model, dtype="fp32", device_name="cpu")
    return updates_in(opened.model)

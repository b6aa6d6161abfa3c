"""The directions along which a matrix acts, and how much those of two matrices overlap.

    phi(i, j) = ||U1[:, :i]^T U2[:, :j]||_F^2 / min(i, j)     0: orthogonal, 1: one subspace contains the other

The columns of U1 and U2 are the right-singular vectors of A1 (r1, d) and A2 (r2, d). Source: Hu et al. 2021, sections
7.2 and G. The appendix prints phi = (1/p)(1 - D^2), but its own definition of D gives 1 - D^2 / p; it also says
*left*-singular where section 7.2 says *right*: A is (r, d), so its vectors in R^d are the right-singular ones.

By chance alone, phi is max(i, j) / d: 64 / 12,288 = 0.5% for GPT-3, but 64 / 384 = 17% for a small model.
"""

from typing import NamedTuple

import numpy as np
from torch import nn

from lora_lab.experiments.low_rank import decompose, spectrum
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, plain_path, report_of


class Update(NamedTuple):
    """One matrix before training, and LoRA's update to it, dW = left diag(values) right^T, strongest direction first.

    weight         W (out, in).
    left, right    (out, rank) and (in, rank); the columns of each are orthonormal.
    values         (rank,) descending.
    a              lora_A (rank, in).
    """

    weight: np.ndarray
    left: np.ndarray
    values: np.ndarray
    right: np.ndarray
    a: np.ndarray


def updates_in(model: nn.Module) -> dict[str, Update]:
    """Return the update, dW = scaling * B A, of every LoRA layer that wraps a linear layer, by `Site.name`."""
    names = {(p.site.module, p.site.out_slice): p.site.name for p in report_of(model).placements}
    updates: dict[str, Update] = {}
    for path, layer in adapter_layers(model):
        if isinstance(layer, LoRALinear):
            tensors = (layer.lora_A, layer.lora_B, layer.frozen_weight())
            a, b, weight = (tensor.detach().cpu().double().numpy() for tensor in tensors)
            (u, values, vt), rank = decompose(layer.scaling * b @ a), len(a)
            name = names[plain_path(path), layer.out_slice]
            updates[name] = Update(weight, u[:, :rank], values[:rank], vt[:rank].T, a)
    return updates


def directions(a: np.ndarray) -> np.ndarray:
    """Return the right-singular vectors of A (r, d) as columns, (d, min(r, d)), strongest first."""
    return decompose(a)[2].T


def phi(first: np.ndarray, second: np.ndarray) -> float:
    """Return phi of two sets of orthonormal columns, (d, i) and (d, j): `directions(A)`, or `Update.right` for B A."""
    return float(np.square(first.T @ second).sum() / min(first.shape[1], second.shape[1]))


def above_chance(first: np.ndarray, second: np.ndarray) -> float:
    """Return phi minus its mean for unrelated subspaces of R^d, max(i, j) / d.

    The expected squared projection of a unit vector onto a random j-dimensional subspace is j / d. For i unit vectors,
    the sum is i j / d, which phi divides by min(i, j). Only one of the two subspaces needs to be random.
    """
    return phi(first, second) - max(first.shape[1], second.shape[1]) / first.shape[0]


def random_directions(d: int, k: int, seed: int = 0) -> np.ndarray:
    """Return k orthonormal columns (d, k) that span the column space of a random Gaussian matrix."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0]


def amplification(update: Update) -> dict[str, float]:
    """Return how much of W lies in dW's directions, compared with W's strongest directions and random ones (Table 7).

    update   ||dW||_F.
    in_update, in_weight, in_random   ||U^T W V||_F with U and V (r directions each) from dW, from W, or random;
             `in_random` is the root mean square over all U and V, ||W||_F r / sqrt(m n): Table 7's 0.02 and 0.33.
    factor   ||dW||_F / ||U^T W V||_F, U and V from dW. The paper's V is (r, n); here it is (n, r).
    """
    weight, rank = update.weight, len(update.values)
    size, in_update = (float(np.linalg.norm(m)) for m in (update.values, update.left.T @ weight @ update.right))
    return {
        "update": size,
        "in_update": in_update,
        "in_weight": float(np.linalg.norm(spectrum(weight)[:rank])),
        "in_random": float(np.linalg.norm(weight)) * rank / float(np.sqrt(weight.size)),
        "factor": size / in_update,
    }

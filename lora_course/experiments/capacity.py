"""Two tasks on which rank shows, as it hardly does on `rt`: an update to recover, and coin flips to learn by heart.

    recover    y = (W + dW) x, where dW has rank R; a student of rank r learns scaling * B A from pairs of x and y
               |scaling * B A - dW|_F / |dW|_F  >=  sqrt(sum of sigma_i^2 over i > r) / |dW|_F     Eckart and Young 1936
    memorise   n real sentences, each with a label from a coin: nothing to understand, everything to store
               Zhang et al. 2017, "Understanding deep learning requires rethinking generalization"

The bound is zero from r = R on and not before: a knee at the teacher's rank.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor, nn

from lora_lab.errors import BadValue
from lora_lab.layers import LoRALinear
from lora_lab.methods.lora import LoRA
from lora_lab.training.assets import asset_path
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import load_task

WEIGHT = "encoder.layer.0.attention.self.query.weight"  # of MiniLM, (384, 384)
HELD_OUT = 8  # sentences each of validation and test, which a task must have; nobody looks at their scores


# ---- recover


@dataclass(frozen=True)
class Teacher:
    """A real weight and the update that is to be found. Shapes: weight, update (out, in), fp32."""

    weight: Tensor
    update: Tensor

    @property
    def singular_values(self) -> Tensor:
        """Of the update, largest first: (min(out, in),)."""
        return torch.linalg.svdvals(self.update)

    def best_error(self, rank: int) -> float:
        """The least relative error that any matrix of this rank has: the tail of the singular values."""
        squares = self.singular_values.double() ** 2
        return float((squares[rank:].sum() / squares.sum()).sqrt())


def teacher(rank: int, *, share: float = 0.5, seed: int = 0) -> Teacher:
    """MiniLM's first query weight W, and a dW of this rank with |dW|_F = share * |W|_F.

    All singular values of dW are equal, so that no direction may be left out cheaply; the directions are random.
    Raises: BadValue for a rank that the weight cannot have; NotFound when MiniLM has not been fetched.
    """
    with safe_open(asset_path("minilm") / "model.safetensors", framework="pt") as file:
        weight: Tensor = file.get_tensor(WEIGHT).float()
    if not 1 <= rank <= min(weight.shape):
        raise BadValue(f"the teacher's rank must be from 1 to {min(weight.shape)}, the size of its weight, not {rank}")
    generator = torch.Generator().manual_seed(seed)
    left, right = (_directions(size, rank, generator) for size in weight.shape)
    return Teacher(weight, left @ right.T * (share * weight.norm() / rank**0.5))


def _directions(size: int, number: int, generator: torch.Generator) -> Tensor:
    """Random orthonormal columns (size, number)."""
    return torch.linalg.qr(torch.randn(size, number, generator=generator))[0]


def recover(
    of: Teacher, ranks: Iterable[int], *, steps: int = 200, lr: float = 1e-2, rows: int = 64, seed: int = 0
) -> pd.DataFrame:
    """Students of these ranks, see `student`; alpha = rank.

    Returns a row for each rank: rank; error, the relative error of the recovered update; best, the least that this
    rank can have; seconds. Both errors are shares of |dW|_F. Raises: BadValue for a rank that no student can have.
    """
    found = []
    for rank in ranks:
        started = time.perf_counter()
        learned = student(of, rank, steps=steps, lr=lr, rows=rows, seed=seed)
        error = float((learned - of.update).norm() / of.update.norm())
        seconds = time.perf_counter() - started
        found.append({"rank": rank, "error": error, "best": of.best_error(rank), "seconds": seconds})
    return pd.DataFrame(found)


def student(
    of: Teacher, rank: int, alpha: float | None = None, *, steps: int = 200, lr: float = 1e-2, rows: int = 64,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """What a LoRA layer on the frozen W learns from the teacher's answers: (alpha / rank) B A, shape (out, in).

    On one thread: matrices this small gain nothing from a second, and on a busy machine lose a factor of ten and more.
    AdamW, the squared error on `rows` new random inputs a step, a rate that falls linearly to zero; alpha = rank
    unless given. Equal seeds have equal inputs and, at one rank, an equal start of A. Raises: BadValue for a rank that
    the weight cannot have.
    """
    if not 1 <= rank <= min(of.weight.shape):
        raise BadValue(f"a student's rank must be from 1 to {min(of.weight.shape)}, not {rank}")
    with _one_thread():
        return _trained(of, rank, (rank if alpha is None else alpha) / rank, steps, lr, rows, seed)


def _trained(of: Teacher, rank: int, scaling: float, steps: int, lr: float, rows: int, seed: int) -> Tensor:
    torch.manual_seed(seed)  # of A
    generator = torch.Generator().manual_seed(seed)
    layer = LoRALinear(_frozen(of.weight), rank, scaling)
    trained = [layer.lora_A, layer.lora_B]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0, fused=True)
    changed = (of.weight + of.update).T  # (in, out)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        x = torch.randn(rows, changed.shape[0], generator=generator)  # (rows, in)
        loss = (layer(x) - x @ changed).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return layer.delta_weight().detach()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _frozen(weight: Tensor) -> nn.Linear:
    out_features, in_features = weight.shape
    layer = nn.Linear(in_features, out_features, bias=False).requires_grad_(False)
    layer.weight.copy_(weight)
    return layer


# ---- memorise


def memorise(
    ranks: Sequence[int], n: int = 128, *, model: str = "minilm", steps: int = 200, batch: int = 16, lr: float = 2e-3,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """A model with LoRA of these ranks on q and v, side by side, on n sentences of `rt` with random labels.

    alpha = 16 at every rank. Returns a row for each rank: rank; learned, the share of the n labels that it gives back
    (0.5 by chance), nan where training diverged. Raises: as `Pack`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coins.csv"
        coin_flips(n, seed).to_csv(file, index=False)
        shared: dict[str, Any] = {"lr": lr, "steps": steps, "batch": batch, "seed": seed, "validations": 1}
        pack = _ByHeart([Recipe(model, str(file), LoRA(rank=rank, alpha=16), **shared) for rank in ranks])
        pack.run()
    return pd.DataFrame({"rank": list(ranks), "learned": [pack.learned.get(rank, float("nan")) for rank in ranks]})


def coin_flips(n: int, seed: int = 0) -> pd.DataFrame:
    """n training sentences of `rt`, half of them labelled 1 by lot, and a few held-out ones: text, label, split."""
    texts = random.Random(seed).sample(load_task("rt").train.texts, n + 2 * HELD_OUT)
    labels = random.Random(seed).sample([i % 2 for i in range(n)], n) + [0, 1] * HELD_OUT
    splits = ["train"] * n + ["validation"] * HELD_OUT + ["test"] * HELD_OUT
    return pd.DataFrame({"text": texts, "label": labels, "split": splits})


class _ByHeart(Pack):
    """A pack that is asked, at its end, for the labels it was trained on."""

    def before_scoring(self) -> None:
        scores = self.score("train")
        self.learned = {
            lane.recipe.method.settings()["rank"]: score.metrics["accuracy"]
            for lane, score in zip(self.lanes, scores, strict=True)
            if lane.error is None
        }

"""What training added to a model, cut to rank r in every matrix at once: the specimens of the truncation microscope.

    W_r = W + sum over i <= r of s_i u_i v_i^T        with dW = sum over all i: the best matrix of rank r there is

Rank 0 is the base model with the trained head, full rank the trained model itself, to the bit in both cases.

What is not a matrix. Full fine-tuning also moves biases and norms, and it moves the embeddings. A vector is a matrix of
one row, so what was added to it has rank 1: from rank 1 on it is there. An embedding table is a matrix like others.
`dense()` leaves all of that as the base has it and cuts the linear layers alone, which is what the paper's hypothesis
of a low "intrinsic rank" is about (Hu et al. 2021, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_course.experiments.subspace import Factors
from lora_lab.errors import BadValue
from lora_lab.methods.merge import merge_for_good
from lora_lab.methods.targets import HEADS, roles_of
from lora_lab.training.models import load_model
from lora_lab.training.train import open_adapter

ROUNDING = 3e-6  # of the largest singular value: what lies below is rounding of fp32, and no direction
ROLES = ("q", "k", "v", "o", "gate", "up", "down", "pooler")  # those of linear layers; others hold tokens or classes


@dataclass(frozen=True)
class Part:
    """One tensor of the model: what it was, what it became, and what was added, as factors (None for a vector)."""

    name: str
    before: Tensor
    after: Tensor
    factors: Factors | None

    @property
    def dense(self) -> bool:
        """Whether it is the weight of a linear layer."""
        path, _, leaf = self.name.rpartition(".")
        return leaf == "weight" and self.factors is not None and bool({*roles_of(path)} & {*ROLES})

    @property
    def rank(self) -> int:
        """How many directions the update has."""
        return 1 if self.factors is None else len(self.factors.values)

    def at(self, rank: int) -> Tensor:
        """The tensor with its update cut to a rank: the old one at 0, the new one, to the bit, from its own rank on."""
        if rank <= 0 or self.factors is None or rank >= self.rank:
            return self.after if rank > 0 else self.before
        return self.before + torch.from_numpy(self.factors.cut(rank))

    def energy(self, rank: int) -> float:
        """Sum of squares of the update that such a rank keeps."""
        if self.factors is None:
            return float((self.after - self.before).double().square().sum()) if rank > 0 else 0.0
        return float((self.factors.values[:rank].astype(float) ** 2).sum())


@dataclass(frozen=True)
class Specimen:
    """An update of a whole model, to be looked at rank by rank.

    head    the trained head, there at every rank: without it a classifier's answer would mean nothing
    """

    name: str
    parts: tuple[Part, ...]
    head: Mapping[str, Tensor]

    @cached_property
    def rank(self) -> int:
        """From here on nothing is cut."""
        return max((part.rank for part in self.parts), default=0)

    def weights(self, rank: int) -> dict[str, Tensor]:
        """The tensors that differ from the base's, cut to a rank, and the head. Raises: BadValue for a rank below 0."""
        if rank < 0:
            raise BadValue(f"a rank is 0 or more, not {rank}")
        return {**{part.name: part.at(rank) for part in self.parts}, **self.head}

    def energy(self, rank: int) -> float:
        """The share of the update's sum of squares that a rank keeps, 0 to 1, over all its parts."""
        whole = sum(part.energy(self.rank) for part in self.parts)
        return sum(part.energy(rank) for part in self.parts) / whole if whole else 1.0

    def dense(self) -> Specimen:
        """The linear layers alone; all the rest as the base has it, but for the head."""
        return replace(self, name=f"{self.name}, linear layers", parts=tuple(part for part in self.parts if part.dense))

    def random(self, seed: int = 0) -> Specimen:
        """Gaussian numbers in place of every part's update, of equal Frobenius norm; the same head.

        In a table of which only some rows moved, only these get any.
        """
        generator = torch.Generator().manual_seed(seed)
        parts = tuple(_aimless(part, generator) for part in self.parts)
        return replace(self, name=f"random like {self.name}", parts=parts)


def specimen(name: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Specimen:
    """What lies between two states of one plain model, as `state_dict` gives them.

    Each matrix is taken apart once: some seconds for MiniLM after full fine-tuning, for a LoRA of q and v hardly one.
    Raises: BadValue for states of different models.
    """
    if before.keys() != after.keys() or any(before[key].shape != after[key].shape for key in before):
        raise BadValue("these are states of different models: give the plain model before training, and after it")
    moved = [key for key in before if not _in_head(key) and before[key].is_floating_point()]
    moved = [key for key in moved if not torch.equal(before[key], after[key])]
    parts = tuple(_part(key, before[key].float(), after[key].float()) for key in moved)
    return Specimen(name, parts, {key: after[key].float() for key in after if _in_head(key)})


def specimen_of(name: str, adapter: str | Path, task: str, model: str = "minilm") -> Specimen:
    """The specimen of a finished run from its folder: an adapter is merged into its base, in fp32.

    Raises: BadValue for a method that no weight could hold; as `open_adapter`.
    """
    opened = open_adapter(adapter, task, model=model, dtype="fp32", device_name="cpu")
    before = load_model(model, opened.task.num_labels).state_dict()
    return specimen(name, before, plain_state(opened.model))


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's numbers after training, under the names of a plain one; an adapter is merged for good."""
    report = getattr(model, "lora_lab_report", None)
    if report is not None and not report.method.trains_base:
        merge_for_good(model)
    return {key: value.detach() for key, value in model.state_dict().items()}


def _part(name: str, before: Tensor, after: Tensor) -> Part:
    return Part(name, before, after, _factors(after - before) if before.dim() == 2 else None)


@torch.no_grad()
def _factors(delta: Tensor) -> Factors:
    """By the eigenvectors of dW^T dW in double precision, (n, n) with n the smaller side: quick for tall matrices.

    Of the rows that moved alone: of an embedding table half are words never read. Directions that are rounding are left
    out, so a LoRA of rank r has r.
    """
    moved = delta.any(1)
    tall = delta[moved] if moved.sum() >= delta.shape[1] else delta[moved].t()
    squares, v = torch.linalg.eigh(tall.double().t() @ tall.double())
    values = squares.flip(0).clamp(min=0).sqrt()
    kept = values > ROUNDING * values[0]
    values, v = values[kept], v.flip(1)[:, kept]
    u = tall.double() @ v / values
    left, right = (u, v) if moved.sum() >= delta.shape[1] else (v, u)
    whole = torch.zeros(len(delta), len(values))
    whole[moved] = left.float()
    return Factors(whole.numpy(), values.float().numpy(), right.float().contiguous().numpy())


def _aimless(part: Part, generator: torch.Generator) -> Part:
    delta = part.after - part.before
    noise = torch.randn(delta.shape, generator=generator)
    if delta.dim() == 2:
        noise *= delta.any(1, keepdim=True)
    return _part(part.name, part.before, part.before + noise * (delta.norm() / noise.norm()))


def _in_head(key: str) -> bool:
    return key.split(".")[0] in HEADS

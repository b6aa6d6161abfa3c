"""Intrinsic dimension: train d numbers that move a whole model through a random subspace, and see how few suffice.

    theta = theta_0 + UNIT * P theta_d      theta: all weights of all linear layers; theta_d: the d numbers that train

P is drawn once and never trained. Here each weight hangs on *one* of the d numbers, chosen at random, with a random
sign: a row of P has a single entry, +1 or -1, so its columns are at right angles, and N indices stand for N x d
numbers. An update of theta_d moves every weight by as much whatever d is, so that one learning rate serves all d about
as well. The head trains as a whole beside it, as it does beside LoRA; d = 0 is the head alone.

Source: Aghajanyan et al. 2020, arXiv 2012.13255, who draw P by a Fastfood transform and set the bar at 90 % of what
full fine-tuning reaches. Nothing here is of low rank: it is a random subspace of all weights, not of each matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import BadValue
from lora_lab.files import remembered
from lora_lab.methods.attach import put
from lora_lab.methods.full import HeadOnly
from lora_lab.methods.targets import HEADS
from lora_lab.training.loop import Member
from lora_lab.training.recipe import Recipe
from lora_lab.training.train import Bench

UNIT = 0.1
"""A step of theta_d moves a weight by a tenth of the learning rate: 2e-3, good for a head, is 2e-4 for weights, which
full fine-tuning of MiniLM likes."""
DIMENSIONS = (0, 100, 1_000, 10_000, 100_000)
ENOUGH = 0.9  # of full fine-tuning's accuracy


class InSubspace(AdapterLayer):
    """A frozen linear layer, moved by numbers that it shares with all others: W + UNIT * sign * theta[index].

    theta (d,); index and sign have one entry for each weight, (out, in), drawn by the generator.
    """

    def __init__(self, base_layer: nn.Linear, theta: nn.Parameter, generator: torch.Generator) -> None:
        super().__init__(base_layer)
        shape = base_layer.weight.shape
        self.theta = theta
        self.index = torch.randint(len(theta), (shape.numel(),), generator=generator, dtype=torch.int32)
        self.sign = torch.randint(2, (shape.numel(),), generator=generator, dtype=torch.int8) * 2 - 1

    def delta_weight(self) -> Tensor:
        """What is added to the weight: (out, in)."""
        moved = UNIT * self.sign * self.theta.index_select(0, self.index)
        return moved.view(self.base_layer.weight.shape)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return self.base_layer(x)
        weight: Tensor = self.base_layer.weight  # type: ignore[assignment]
        return F.linear(x, weight + self.delta_weight(), self.base_layer.bias)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Point:
    """What d numbers came to: metrics of the test split, and the seconds of the run."""

    d: int
    metrics: dict[str, float]
    seconds: float


def put_into_subspace(model: nn.Module, d: int, seed: int = 0) -> nn.Parameter:
    """Let every linear layer but the head hang on d numbers, which are zero: the model is as it was; returns them.

    Raises: BadValue for a d below 1, or above the number of weights.
    """
    layers = [(n, m) for n, m in model.named_modules() if type(m) is nn.Linear and n.split(".")[0] not in HEADS]
    weights = sum(layer.weight.numel() for _, layer in layers)
    if not 1 <= d <= weights:
        raise BadValue(f"d counts numbers that train in place of {weights:,} weights: take 1 to that many, not {d:,}")
    generator = torch.Generator().manual_seed(seed)
    theta = nn.Parameter(torch.zeros(d))
    for path, layer in layers:
        put(model, path, InSubspace(layer, theta, generator))
    return theta


def at_dimension(d: int, recipe: Recipe) -> Point:
    """Train d numbers (0: only the head) as a recipe says, whose method is replaced by this; score the test once.

    The seed of the recipe draws the subspace as well. Raises: as `put_into_subspace`, and as `train`.
    """
    bench = Bench(_headed(recipe))
    if d:
        put_into_subspace(bench.model, d, recipe.seed)
        bench.member = Member(bench.recipe, bench.model)
        bench.members = [bench.member]
    run = bench.only()
    return Point(d, run.metrics, run.seconds)


def dimensions(ds: Sequence[int], recipe: Recipe, folder: Path) -> list[Point]:
    """A point for each d, smallest first; those that the folder has are read, and new ones are kept there."""
    name = _headed(recipe).hash

    def point(d: int) -> Point:
        return Point(**remembered(folder / f"{name}-{d}.json", lambda: asdict(at_dimension(d, recipe))))

    return [point(d) for d in sorted(ds)]


def intrinsic_dimension(points: Sequence[Point], full: float, share: float = ENOUGH) -> int | None:
    """The smallest of the measured d that reaches a share of full fine-tuning's accuracy; None where none does."""
    return next((point.d for point in points if point.metrics["accuracy"] >= share * full), None)


def _headed(recipe: Recipe) -> Recipe:
    return replace(recipe, method=HeadOnly())

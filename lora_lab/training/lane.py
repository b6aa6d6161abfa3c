"""One run among those that train side by side: its recipe, its optimizer, its history, and how it ended."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_lab.errors import LabWarning
from lora_lab.methods.packed import Stream
from lora_lab.training.early_warnings import gradient_warning, rate_warning
from lora_lab.training.metrics import better
from lora_lab.training.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """One step of a run, as callbacks see it; `validation` holds metrics at the steps that are validated."""

    step: int
    steps: int
    loss: float
    lr: float
    validation: dict[str, float] | None = None


Callback = Callable[[Progress], None]


@dataclass
class History:
    """What happened, step by step; `before` is validated untrained."""

    before: dict[str, float] = field(default_factory=dict)
    progress: list[Progress] = field(default_factory=list)

    def columns(self) -> dict[str, list[Any]]:
        """As lists that JSON can hold: step, loss, lr, and validation as one record a validated step, 0 the first."""
        seen = self.progress
        before = [{"step": 0, **self.before}] if self.before else []
        return {
            "step": [p.step for p in seen],
            "loss": [p.loss for p in seen],
            "lr": [p.lr for p in seen],
            "validation": before + [{"step": p.step, **p.validation} for p in seen if p.validation],
        }

    def restore(self, columns: dict[str, list[Any]], steps: int) -> None:
        """The inverse of `columns`."""
        found = {r["step"]: {k: v for k, v in r.items() if k != "step"} for r in columns["validation"]}
        self.before = found.get(0, {})
        rows = zip(columns["step"], columns["loss"], columns["lr"], strict=True)
        self.progress = [Progress(step, steps, loss, lr, found.get(step)) for step, loss, lr in rows]


class Lane:
    """A run in the making.

    model    a plain model with the recipe's method attached; what requires a gradient in it trains
    stream   its random numbers, where it stands in a pack
    status   "training" until it has ended: "done", "early" by patience, "stopped" by hand, "behind" others in a
             sweep that chooses, or "failed" with `error`
    warnings what was seen in the first step
    right    of the last validation, as `Score.right`
    """

    def __init__(
        self, recipe: Recipe, model: nn.Module, callbacks: Sequence[Callback] = (), stream: Stream | None = None
    ) -> None:
        self.recipe, self.model, self.callbacks = recipe, model, callbacks
        self.stream = stream or Stream(recipe.seed)
        self.trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.row: Tensor | None = None  # in a pack: all of them and what fills them up, as one
        self.optimizer = self._optimizer_of(self.trained)
        self.history, self.status = History(), "training"
        self.error: str | None = None
        self.warnings: list[str] = []
        self.best: dict[str, float] | None = None  # validation so far, and how many there were since
        self.since = 0
        self.right: np.ndarray | None = None

    def adopt(self, numbers: Tensor, gradients: Tensor) -> None:
        """Stand in a pack, or in a smaller one: what trains is a row of its table now. The moments stay."""
        if self.row is None:
            self.row = numbers
            self.optimizer = self._optimizer_of([numbers])
        self.row.data, self.row.grad = numbers, gradients

    def moments(self, name: str) -> list[Tensor]:
        """One of AdamW's moments of each trained parameter, in its shape; empty before the first update."""
        state = self.optimizer.state
        if self.row is None:
            return [state[p][name] for p in self.trained if name in state.get(p, {})]
        if name not in state.get(self.row, {}):
            return []
        return [self._part(state[self.row][name], p) for p in self.trained]

    def set_moments(self, moments: Mapping[str, Sequence[Tensor]], step: Tensor) -> None:
        """The inverse of `moments`, for both at once."""
        for owner in self.trained if self.row is None else [self.row]:
            self.optimizer.state[owner] = {"step": step.clone(), **{n: torch.zeros_like(owner) for n in moments}}
        for name, values in moments.items():
            for mine, value in zip(self.moments(name), values, strict=True):
                mine.copy_(value)

    @property
    def updates(self) -> Tensor:
        """How many updates the optimizer has made."""
        first = self.optimizer.state.get(self.trained[0] if self.row is None else self.row, {})
        return first.get("step", torch.zeros(()))

    @property
    def ended(self) -> bool:
        """Whether it trains no more."""
        return self.status != "training"

    def update(self, step: int, loss: float) -> None:
        """One update from the gradients that are there: clipped, at the rate of this step.

        A loss or a gradient that is no number ends the lane before anything is made of it.
        """
        recipe, rate = self.recipe, self.recipe.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("ratio", 1.0)
        if not self.history.progress:
            self._warn(rate_warning(recipe), gradient_warning(self.model))
        if self._is_finite(loss, "loss", step):
            norm = nn.utils.clip_grad_norm_(self.trained if self.row is None else self.row, recipe.clip or math.inf)
            if self._is_finite(norm.item(), "gradient", step):
                self.optimizer.step()
                self.history.progress.append(Progress(step, recipe.steps, loss, rate))

    def clear_gradients(self) -> None:
        """In a pack they are views, so they are filled with zeros; alone they are given back."""
        if self.row is not None and self.row.grad is not None:
            self.row.grad.zero_()
        else:
            self.model.zero_grad()

    def note(self, metrics: dict[str, float] | None) -> None:
        """Take down the validation of the last update, if there was one, and tell those who watch."""
        last = self.history.progress[-1]
        if metrics and not self._is_finite(metrics.get("loss", 0.0), "validation loss", last.step):
            return
        now = Progress(last.step, last.steps, last.loss, last.lr, metrics)
        self.history.progress[-1] = now
        for callback in self.callbacks:
            callback(now)
        if metrics and self._is_stale(metrics) and not self.ended:
            self.status = "early"

    def end(self, status: str) -> None:
        """Say how it ended, unless it has ended already."""
        self.status = self.status if self.ended else status

    def fail(self, reason: str) -> None:
        """End as failed, for this reason."""
        self.status, self.error = "failed", reason

    def check_finite(self, metrics: Mapping[str, float]) -> None:
        """End as failed where a metric of the test rows is no number, which a record cannot hold."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                self.fail(f"the test {name} became {value}: lower the rate (lr was {self.recipe.lr:g})")

    def _warn(self, *sentences: str | None) -> None:
        """Take down what will go wrong, and say it while it can still be mended."""
        for sentence in filter(None, sentences):
            self.warnings.append(sentence)
            warnings.warn(sentence, LabWarning, stacklevel=4)

    def _optimizer_of(self, tensors: Sequence[Tensor]) -> torch.optim.AdamW:
        groups = self._by_rate(tensors)
        return torch.optim.AdamW(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=True)

    def _by_rate(self, tensors: Sequence[Tensor]) -> list[Any]:
        """All at one rate; or, with LoRA+, B's apart at `ratio` times the others'. Source: Hayou et al. 2024."""
        ratio = getattr(self.recipe.method, "lr_ratio", 1.0)
        if ratio == 1.0:
            return list(tensors)
        named = self.model.named_parameters()
        fast = {id(p) for name, p in named if name.rpartition(".")[2] in ("lora_B", "lora_embedding_B")}
        sides = [t for t in tensors if id(t) not in fast], [t for t in tensors if id(t) in fast]
        return [{"params": side, "ratio": r} for side, r in zip(sides, (1.0, ratio), strict=True) if side]

    def _part(self, whole: Tensor, parameter: Tensor) -> Tensor:
        """The part of something as long as the row that stands where the parameter does in the row."""
        assert self.row is not None
        place = parameter.storage_offset() - self.row.storage_offset()
        return whole.as_strided(parameter.shape, parameter.stride(), whole.storage_offset() + place)

    def _is_stale(self, metrics: dict[str, float]) -> bool:
        """Take note of a validation; True when `patience` of them have passed without a better one."""
        if self.best is None or better(metrics, self.best):
            self.best, self.since = metrics, 0
        else:
            self.since += 1
        return bool(self.recipe.patience) and self.since >= self.recipe.patience

    def _is_finite(self, value: float, what: str, step: int) -> bool:
        finite = math.isfinite(value)
        if not finite:
            self.fail(f"the {what} became {value} at step {step}: lower the rate (lr was {self.recipe.lr:g})")
        return finite


def end_all(lanes: Sequence[Lane], status: str) -> None:
    """Say of all that have not ended yet how they did."""
    for lane in lanes:
        lane.end(status)

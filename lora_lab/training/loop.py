"""The training loop, plain enough to step through. Whatever else should happen at a step is a callback."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lora_lab.errors import Failed
from lora_lab.layers import AdaptedLayer
from lora_lab.training.batches import Batch
from lora_lab.training.evaluate import better, logits_of, loss_of
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
    """What happened, step by step, and how it ended: "done", "stopped" or "early"; `before` is validated untrained."""

    before: dict[str, float] = field(default_factory=dict)
    progress: list[Progress] = field(default_factory=list)
    status: str = "done"

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


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    validate: Callable[[], dict[str, float]],
    *,
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
    history: History | None = None,
) -> History:
    """Train what requires a gradient in `model`, one batch a step, on the device that the batches are on.

    history     filled as training goes on, so that a run that fails still shows how far it came; a new one when None
    Raises: Failed when a loss or the gradient is no longer a number, naming the step and the rate.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    history, best = History() if history is None else history, Best(recipe.patience)
    history.before = validate()
    training_mode(model, base_dropout=recipe.dropout)
    for step, batch in enumerate(batches, start=1):
        lr = recipe.lr_at(step)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = loss_of(logits_of(model, batch), batch.labels).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, recipe.clip or math.inf)
        value = check_finite(loss.item(), "loss", step, recipe)
        check_finite(norm.item(), "gradient", step, recipe)
        optimizer.step()
        optimizer.zero_grad()

        metrics = validate() if validates_at(step, recipe) else None
        if metrics:
            check_finite(metrics.get("loss", 0.0), "validation loss", step, recipe)
        progress = Progress(step, recipe.steps, value, lr, metrics)
        history.progress.append(progress)
        for callback in callbacks:
            callback(progress)
        if stop is not None and stop.is_set():
            history.status = "stopped"
            break
        if metrics and best.is_stale(metrics):
            history.status = "early"
            break
    model.eval()
    return history


def check_finite(value: float, what: str, step: int, recipe: Recipe) -> float:
    """The value itself. Raises: Failed when it is infinite or no number, before anything is made of it."""
    if not math.isfinite(value):
        raise Failed(f"the {what} became {value} at step {step}: lower the rate (lr was {recipe.lr:g})")
    return value


def validates_at(step: int, recipe: Recipe) -> bool:
    """Whether `step` is one of the evenly spread validations; the last step always is."""
    n = min(recipe.validations, recipe.steps)
    return (step * n) // recipe.steps > ((step - 1) * n) // recipe.steps


def training_mode(model: nn.Module, *, base_dropout: bool) -> None:
    """Switch on the dropout of what trains; the frozen base's own only where asked for."""
    model.train(base_dropout)
    for module in model.modules():
        if isinstance(module, AdaptedLayer):
            module.train()
            module.base_layer.train(base_dropout)


class Best:
    """Remembers the best validation and counts those since."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.since = patience, None, 0

    best: dict[str, float] | None

    def is_stale(self, metrics: dict[str, float]) -> bool:
        """Take note of a validation; True when `patience` of them have passed without a better one."""
        if self.best is None or better(metrics, self.best):
            self.best, self.since = metrics, 0
        else:
            self.since += 1
        return bool(self.patience) and self.since >= self.patience


def on_device(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """The batches, moved as they are asked for."""
    return (batch.to(device) for batch in batches)

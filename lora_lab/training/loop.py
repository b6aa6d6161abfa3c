"""The training loop: `fit` for one model, `fit_together` for a pack of adapters on one frozen base."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.errors import warn
from lora_lab.methods.attach import Ahead
from lora_lab.metrics import better
from lora_lab.training.batches import Batch
from lora_lab.training.device import in_parts, rounded_products
from lora_lab.training.early_warnings import gradient_warning, rate_warning
from lora_lab.training.evaluate import learned_tokens, logits_of, loss_of
from lora_lab.training.recipe import Recipe

Metrics = dict[str, float]
After = Callable[[int, bool], None]
Losses = Callable[[Tensor, Tensor, Sequence["Member"]], Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")


def label_losses(logits: Tensor, labels: Tensor, members: Sequence[Member]) -> Tensor:
    """Return each member's mean loss, (members,): over rows or, with `token_mean`, over tokens as in Hu et al."""
    recipe = members[0].recipe
    losses = loss_of(logits, labels, recipe.label_smoothing).view(len(members), -1)  # (members, rows)
    if not recipe.token_mean or labels.dim() == 1:
        return losses.mean(1)
    tokens = learned_tokens(labels).view(len(members), -1)
    return (losses * tokens).sum(1) / tokens.sum(1).clamp(min=1)


def fit(
    member: Member,
    batches: Iterable[tuple[int, Batch]],
    validate: Callable[[], Metrics],
    *,
    losses: Losses = label_losses,
    after: After = lambda step, validated: None,
    products: str = "fp32",
    stop: threading.Event | None = None,
) -> None:
    """Train one model, one batch per step, until the batches or the patience run out.

    batches     the remaining steps: (step, batch)
    validate    returns the metrics of the validation split
    losses      returns the losses to minimize, (members,), from (logits, labels, members)
    after       called after each step with (step, whether it was validated)
    products    see `rounded_products`
    stop        set it to end training after the current step
    """
    recipe, model = member.recipe, member.model
    training_mode(model, base_dropout=recipe.dropout)
    for step, batch in batches:
        with rounded_products(products):
            loss = losses(logits_of(model, batch), batch.labels, [member])[0]
            loss.backward()
        loss, norm = torch.stack([loss.detach(), member.clip()]).tolist()
        member.update(step, loss, norm)  # AdamW; a non-finite loss ends the run
        model.zero_grad()
        validates = validates_at(step, recipe)
        member.note(validate() if validates else None)  # history, callbacks, patience
        after(step, validates)
        if stop is not None and stop.is_set():
            member.end("stopped")
        if member.ended:
            break
    member.end("done")
    model.eval()


def fit_together(
    model: nn.Module,
    members: Sequence[Member],
    batches: Iterable[tuple[int, Batch]],
    validate: Callable[[], Sequence[Metrics]],
    leave: Callable[[Sequence[Member]], tuple[nn.Module, Sequence[Member]]],
    *,
    losses: Losses = label_losses,
    after: After = lambda step, validated: None,
    stop: threading.Event | None = None,
) -> None:
    """Train the members of a pack as in `fit`, one batch per member per step, until the last member has ended.

    model   computes all members' rows, concatenated in one batch
    leave   called with members that ended while others continue; returns the remaining model and members
    A member with a non-finite loss or gradient ends as failed. The others continue: rows of different members never
    interact.
    """
    recipe = members[0].recipe
    training_mode(model, base_dropout=recipe.dropout)
    for step, batch in batches:
        in_parts(partial(update, step, batch, members, losses=losses), model, len(members))
        validates = validates_at(step, recipe)
        results: Sequence[Metrics | None] = validate() if validates else [None] * len(members)
        for member, metrics in zip(members, results, strict=True):
            member.note(metrics)
        after(step, validates)
        if stop is not None and stop.is_set():
            for member in members:
                member.end("stopped")
        ended = [member for member in members if member.ended]
        if len(ended) == len(members):
            break
        if ended:
            model, members = leave(ended)
            training_mode(model, base_dropout=recipe.dropout)
    for member in members:
        member.end("done")
    model.eval()


def update(
    step: int, batch: Batch, members: Sequence[Member], model: nn.Module, part: slice, losses: Losses = label_losses
) -> None:
    """Run forward, backward and the update for the members in one part of a pack's model."""
    members_of_part, rows = members[part], batch.of_members(part, len(members))
    values = losses(logits_of(model, rows), rows.labels, members_of_part)
    values.sum().backward()
    norms = torch.stack([member.clip() for member in members_of_part])
    both = torch.stack([values.detach(), norms], dim=1).tolist()  # waits for a GPU once for all members
    for member, (loss, norm) in zip(members_of_part, both, strict=True):
        member.update(step, loss, norm)
        member.optimizer.zero_grad(set_to_none=False)  # gradients are views of the pack's table


def validates_at(step: int, recipe: Recipe) -> bool:
    """Return whether to validate after `step`: at even intervals including the last step, if at all."""
    n = min(recipe.validations, recipe.steps)
    return (step * n) // recipe.steps > ((step - 1) * n) // recipe.steps


def training_mode(model: nn.Module, *, base_dropout: bool) -> None:
    """Enable dropout in adapters and heads, and in the frozen base only with `base_dropout`."""
    model.train(base_dropout)
    for module in model.modules():
        if isinstance(module, AdapterLayer | Ahead):
            module.train()
        if isinstance(module, AdapterLayer):
            module.base_layer.train(base_dropout)


@dataclass(frozen=True)
class Progress:
    """One step of a run, as passed to callbacks; `validation` holds metrics if the step was validated."""

    step: int
    steps: int
    loss: float
    lr: float
    validation: Metrics | None = None


Callback = Callable[[Progress], None]


class Member:
    """A run in training, alone or in a pack.

    model    a model with the recipe's method attached; its parameters with requires_grad=True are trained
    row      in a pack, the member's row of the parameter table: all trained parameters, padded, as one tensor
    history  lists for JSON: step, loss and lr of every update; validation, with one record per validated step,
             starting with step 0 (the untrained model)
    status   "training", then "done", "early" (patience), "stopped" (by hand), "behind" (stopped by a sweep
             with `choose`) or "failed" with `error`
    right    `Score.right` of the last validation
    """

    def __init__(self, recipe: Recipe, model: nn.Module, callbacks: Sequence[Callback] = ()) -> None:
        self.recipe, self.model, self.callbacks = recipe, model, callbacks
        self.trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.row: Tensor | None = None
        self.optimizer = self._adamw(self.trained)
        self.history: dict[str, list[Any]] = {"step": [], "loss": [], "lr": [], "validation": []}
        self.status = "training"
        self.error: str | None = None
        self.warnings: list[str] = []
        self.best: Metrics | None = None  # best validation so far
        self.since = 0  # validations since the best one
        self.right: np.ndarray | None = None

    @property
    def ended(self) -> bool:
        """Whether training has ended."""
        return self.status != "training"

    def clip(self) -> Tensor:
        """Clip the current gradients to the recipe's norm; return their norm before clipping."""
        return nn.utils.clip_grad_norm_(self.trained if self.row is None else self.row, self.recipe.clip or math.inf)

    def update(self, step: int, loss: float, norm: float) -> None:
        """Update the parameters at this step's rate; if the loss or gradient norm isn't finite, end the run instead."""
        recipe, rate = self.recipe, self.recipe.lr_at(step)
        if not self.history["step"]:
            for message in filter(None, (rate_warning(recipe), gradient_warning(self.model))):
                self.warnings.append(message)
                warn(message)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("ratio", 1.0)
        if self.is_finite({"loss": loss, "gradient": norm}, step):
            self.optimizer.step()
            for name, value in (("step", step), ("loss", loss), ("lr", rate)):
                self.history[name].append(value)

    def note(self, metrics: Metrics | None) -> None:
        """Record the last update's validation, if any, and call the callbacks, unless training has ended."""
        if self.ended:
            return
        step, loss, lr = (self.history[name][-1] for name in ("step", "loss", "lr"))
        if metrics:
            if not self.is_finite({"validation loss": metrics.get("loss", 0.0)}, step):
                return
            self.history["validation"].append({"step": step, **metrics})
        progress = Progress(step, self.recipe.steps, loss, lr, metrics)
        for callback in self.callbacks:
            callback(progress)
        if metrics:
            improved = self.best is None or better(metrics, self.best)
            self.best, self.since = (metrics, 0) if improved else (self.best, self.since + 1)
            if 0 < self.recipe.patience <= self.since:
                self.end("early")

    def end(self, status: str) -> None:
        """Set the final status, unless training has already ended."""
        self.status = self.status if self.ended else status

    def fail(self, reason: str) -> None:
        """End the run as failed."""
        self.status, self.error = "failed", reason

    def is_finite(self, values: Mapping[str, float], step: int | None = None) -> bool:
        """Return whether all values are finite. If not, end the run as failed: records hold only finite numbers."""
        for name, value in values.items():
            if not math.isfinite(value):
                at = f" at step {step}" if step else ""
                self.fail(f"the {name} became {value}{at}: lower the rate (lr was {self.recipe.lr:g})")
                return False
        return True

    def join(self, numbers: Tensor, gradients: Tensor, state: Mapping[str, Sequence[Tensor]]) -> None:
        """From now on, train a row of a pack's table, continuing from the optimizer's `state`."""
        self.row, self.row.grad = numbers, gradients
        self.optimizer = self._adamw([numbers])
        self.set_state(state)

    def state(self) -> dict[str, list[Tensor]]:
        """Return AdamW's state, {} before the first update.

        step                  one tensor, the number of updates
        exp_avg, exp_avg_sq   each trained parameter's moments, in its shape; in a pack, views of the row's moments
        """
        state, row = self.optimizer.state, self.row
        if not state:
            return {}
        if row is None:
            moments = {name: [state[p][name] for p in self.trained] for name in MOMENTS}
            return {"step": [state[self.trained[0]]["step"]], **moments}
        places = [(p.shape, p.stride(), p.storage_offset() - row.storage_offset()) for p in self.trained]
        moments = {name: [state[row][name].as_strided(*place) for place in places] for name in MOMENTS}
        return {"step": [state[row]["step"]], **moments}

    def set_state(self, state: Mapping[str, Sequence[Tensor]]) -> None:
        """Restore what `state` returned."""
        if not state:
            return
        for owner in self.trained if self.row is None else [self.row]:
            zeros = {name: torch.zeros_like(owner) for name in MOMENTS}
            self.optimizer.state[owner] = {"step": state["step"][0].clone().to(owner.device), **zeros}
        own = self.state()
        for name in MOMENTS:
            for moment, value in zip(own[name], state[name], strict=True):
                moment.copy_(value)

    def _adamw(self, tensors: Sequence[Tensor]) -> torch.optim.AdamW:
        """Return AdamW with one learning rate; with LoRA+, B's rate is `lr_ratio` times higher (Hayou et al. 2024)."""
        ratio = getattr(self.recipe.method, "lr_ratio", 1.0)
        groups: list[Any] = list(tensors)
        if ratio != 1.0:
            named = self.model.named_parameters()
            fast = {id(p) for name, p in named if name.rpartition(".")[2] in ("lora_B", "lora_embedding_B")}
            sides = [t for t in tensors if id(t) not in fast], [t for t in tensors if id(t) in fast]
            groups = [{"params": side, "ratio": r} for side, r in zip(sides, (1.0, ratio), strict=True) if side]
        return torch.optim.AdamW(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=True)

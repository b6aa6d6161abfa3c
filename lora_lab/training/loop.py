"""The training loop: `fit` for one model, `fit_together` for a pack of adapters on one frozen base."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from lora_lab.training.device import rounded_products
from lora_lab.training.early_warnings import gradient_warning, rate_warning
from lora_lab.training.evaluate import learned_tokens, logits_of, loss_of
from lora_lab.training.parts import in_parts
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
    """Train one model, one batch per step, until the batches or its patience run out.

    batches     the remaining steps: (step, batch)
    validate    returns the metrics of the validation split
    losses      computes what is minimized, (members,), from (logits, labels, members)
    after       called after each step with (step, whether it was validated)
    products    see `rounded_products`
    stop        set it to end training after the current step
    """
    recipe, model = member.recipe, member.model
    training_mode(model, base_dropout=recipe.dropout)
    for step, batch in () if member.ended else batches:
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
    """Train the members of a pack as in `fit`, one batch of each per step, until the last member has ended.

    model   computes all members' rows, concatenated in one batch
    leave   called with members that ended while others continue; returns the remaining model and members
    A member with a non-finite loss or gradient ends as failed. The others continue: rows of different members never
    interact.
    """
    recipe = members[0].recipe

    def drop_ended() -> tuple[nn.Module, Sequence[Member]]:
        ended = [member for member in members if member.ended]
        remaining = leave(ended) if 0 < len(ended) < len(members) else (model, members)
        training_mode(remaining[0], base_dropout=recipe.dropout)
        return remaining

    model, members = drop_ended()  # members restored from a checkpoint may have ended
    for step, batch in () if all(member.ended for member in members) else batches:
        in_parts(partial(update, step, batch, members, losses), model, len(members))
        validates = validates_at(step, recipe)
        results: Sequence[Metrics | None] = validate() if validates else [None] * len(members)
        for member, metrics in zip(members, results, strict=True):
            member.note(metrics)
        after(step, validates)
        if stop is not None and stop.is_set():
            for member in members:
                member.end("stopped")
        model, members = drop_ended()
        if all(member.ended for member in members):
            break
    for member in members:
        member.end("done")
    model.eval()


def update(
    step: int, batch: Batch, members: Sequence[Member], losses: Losses, model: nn.Module, part: slice
) -> Sequence[Member]:
    """Run forward, backward and the update for the members in one part of a pack's model."""
    members_of_part, rows = members[part], batch.of_members(part, len(members))
    values = losses(logits_of(model, rows), rows.labels, members_of_part)
    values.sum().backward()
    norms = torch.stack([member.clip() for member in members_of_part])
    both = torch.stack([values.detach(), norms], dim=1).tolist()  # waits for a GPU once for all members
    for member, (loss, norm) in zip(members_of_part, both, strict=True):
        member.update(step, loss, norm)
        member.optimizer.zero_grad(set_to_none=False)  # views of the pack's table
    return members_of_part


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


@dataclass
class History:
    """The steps of a run; `before` holds the metrics of the untrained model."""

    before: Metrics = field(default_factory=dict)
    progress: list[Progress] = field(default_factory=list)

    def columns(self) -> dict[str, list[Any]]:
        """Return lists for JSON: step, loss, lr, and validation with one record per validated step, from step 0."""
        steps = self.progress
        before = [{"step": 0, **self.before}] if self.before else []
        return {
            "step": [p.step for p in steps],
            "loss": [p.loss for p in steps],
            "lr": [p.lr for p in steps],
            "validation": before + [{"step": p.step, **p.validation} for p in steps if p.validation],
        }

    def restore(self, columns: dict[str, list[Any]], steps: int) -> None:
        """Restore what `columns` returned."""
        validations = {r["step"]: {k: v for k, v in r.items() if k != "step"} for r in columns["validation"]}
        self.before = validations.get(0, {})
        rows = zip(columns["step"], columns["loss"], columns["lr"], strict=True)
        self.progress = [Progress(step, steps, loss, lr, validations.get(step)) for step, loss, lr in rows]


class Member:
    """A run in training, alone or in a pack.

    model    a model with the recipe's method attached; parameters that require a gradient train
    row      in a pack, the member's row of the parameter table: everything that trains, padded, as one tensor
    status   "training", then "done", "early" (patience), "stopped" (by hand), "behind" (stopped by a choosing
             sweep) or "failed" with `error`
    right    `Score.right` of the last validation
    """

    def __init__(self, recipe: Recipe, model: nn.Module, callbacks: Sequence[Callback] = ()) -> None:
        self.recipe, self.model, self.callbacks = recipe, model, callbacks
        self.trained: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.row: Tensor | None = None
        self.optimizer = self._adamw(self.trained)
        self.history, self.status = History(), "training"
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
        """Clip the current gradients to the recipe's norm; return the norm that they had."""
        return nn.utils.clip_grad_norm_(self.trained if self.row is None else self.row, self.recipe.clip or math.inf)

    def update(self, step: int, loss: float, norm: float) -> None:
        """Update at this step's learning rate. A non-finite loss or gradient norm ends the run first."""
        recipe, rate = self.recipe, self.recipe.lr_at(step)
        if not self.history.progress:
            for message in filter(None, (rate_warning(recipe), gradient_warning(self.model))):
                self.warnings.append(message)
                warn(message)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("ratio", 1.0)
        if self._is_finite(loss, "loss", step) and self._is_finite(norm, "gradient", step):
            self.optimizer.step()
            self.history.progress.append(Progress(step, recipe.steps, loss, rate))

    def note(self, metrics: Metrics | None) -> None:
        """Record the last update's validation, if any, and call the callbacks, unless training has ended."""
        if self.ended:
            return
        last = self.history.progress[-1]
        if metrics and not self._is_finite(metrics.get("loss", 0.0), "validation loss", last.step):
            return
        progress = self.history.progress[-1] = Progress(last.step, last.steps, last.loss, last.lr, metrics)
        for callback in self.callbacks:
            callback(progress)
        if metrics and self._is_stale(metrics):
            self.end("early")

    def end(self, status: str) -> None:
        """Set the final status, unless training has already ended."""
        self.status = self.status if self.ended else status

    def fail(self, reason: str) -> None:
        """End the run as failed."""
        self.status, self.error = "failed", reason

    def check_finite(self, metrics: Mapping[str, float]) -> None:
        """Fail the run if a test metric is not finite, since a record cannot hold it."""
        for name, value in metrics.items():
            self._is_finite(value, f"test {name}")

    def join(self, numbers: Tensor, gradients: Tensor, state: Mapping[str, Any]) -> None:
        """From now on, train a row of a pack's table, continuing from the optimizer's `state`."""
        self.row, self.row.grad = numbers, gradients
        self.optimizer = self._adamw([numbers])
        self.set_state(state)

    def state(self) -> dict[str, Any]:
        """Return AdamW's state: the number of updates, and both moments in each trained parameter's shape."""
        state = self.optimizer.state
        owners = self.trained if self.row is None else [self.row] * len(self.trained)  # one state, sliced by `_part`
        states = [state[owner] for owner in owners if state.get(owner)]
        moments = {
            name: [self._part(s[name], p) for s, p in zip(states, self.trained, strict=True)] if states else []
            for name in MOMENTS
        }
        return {"step": states[0]["step"] if states else torch.zeros(()), **moments}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        if not state[MOMENTS[0]]:
            return
        for owner in self.trained if self.row is None else [self.row]:
            self.optimizer.state[owner] = {
                "step": state["step"].clone().to(owner.device), **{name: torch.zeros_like(owner) for name in MOMENTS}
            }  # fmt: skip
        for name, moments in self.state().items():
            for moment, value in zip(moments, state[name], strict=True) if name in MOMENTS else ():
                moment.copy_(value)

    def _is_stale(self, metrics: Metrics) -> bool:
        """Return whether `patience` validations have passed without improvement."""
        improved = self.best is None or better(metrics, self.best)
        self.best, self.since = (metrics, 0) if improved else (self.best, self.since + 1)
        return bool(self.recipe.patience) and self.since >= self.recipe.patience

    def _part(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """Return the view of a row-sized tensor at the parameter's offset in the row."""
        if self.row is None:
            return tensor
        offset = parameter.storage_offset() - self.row.storage_offset()
        return tensor.as_strided(parameter.shape, parameter.stride(), tensor.storage_offset() + offset)

    def _adamw(self, tensors: Sequence[Tensor]) -> torch.optim.AdamW:
        """Return AdamW with one learning rate; with LoRA+, B's is `lr_ratio` times higher (Hayou et al. 2024)."""
        ratio = getattr(self.recipe.method, "lr_ratio", 1.0)
        groups: list[Any] = list(tensors)
        if ratio != 1.0:
            named = self.model.named_parameters()
            fast = {id(p) for name, p in named if name.rpartition(".")[2] in ("lora_B", "lora_embedding_B")}
            sides = [t for t in tensors if id(t) not in fast], [t for t in tensors if id(t) in fast]
            groups = [{"params": side, "ratio": r} for side, r in zip(sides, (1.0, ratio), strict=True) if side]
        return torch.optim.AdamW(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=True)

    def _is_finite(self, value: float, what: str, step: int | None = None) -> bool:
        finite = math.isfinite(value)
        if not finite:
            at = f" at step {step}" if step else ""
            self.fail(f"the {what} became {value}{at}: lower the rate (lr was {self.recipe.lr:g})")
        return finite

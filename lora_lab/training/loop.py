"""The training loop, plain enough to step through: one run, or many side by side on one frozen base."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from lora_lab.switched import AdaptedLayer, Switched
from lora_lab.training.evaluate import lane_losses, logits_of
from lora_lab.training.lane import Lane
from lora_lab.training.products import products_in
from lora_lab.training.recipe import Recipe

if TYPE_CHECKING:
    from lora_lab.training.pack import Pack


def fit(runs: Pack, *, stop: threading.Event | None = None) -> None:
    """Train all lanes, one batch of each a step, until the last of them has ended; `Pack` says what is asked of it.

    A lane whose loss or gradient is no longer a number ends as failed; the others go on, for no lane's rows meet
    another's.
    """
    if runs.lanes[0].recipe.validations and not any(lane.history.progress for lane in runs.lanes):
        for lane, metrics in zip(runs.lanes, runs.before(), strict=True):
            lane.history.before = metrics
    recipe = runs.lanes[0].recipe
    training_mode(runs.model, base_dropout=recipe.dropout)
    over = _all_ended(runs)  # lanes may come back from the disk as they ended
    for step, batch in () if over else runs.batches():
        with products_in(runs.choice.products):
            losses = lane_losses(
                logits_of(runs.model, batch), batch.labels, len(runs.lanes),
                smoothing=recipe.label_smoothing, token_mean=recipe.token_mean,
            )  # fmt: skip
            losses.sum().backward()
        for lane, loss in zip(runs.lanes, losses.tolist(), strict=True):
            lane.update(step, loss)
        runs.clear_gradients()
        _note(runs, step, validates_at(step, recipe))
        if stop is not None and stop.is_set():
            end_all(runs.lanes, "stopped")
        if _all_ended(runs):
            break
    end_all(runs.lanes, "done")
    runs.model.eval()


def _all_ended(runs: Pack) -> bool:
    """Whether nothing trains any more; where only some have ended, they leave, and the others train on."""
    ended = [lane for lane in runs.lanes if lane.ended]
    if len(ended) == len(runs.lanes):
        return True
    if ended:
        runs.leave(ended)
        training_mode(runs.model, base_dropout=runs.lanes[0].recipe.dropout)
    return False


def _note(runs: Pack, step: int, validates: bool) -> None:
    """What each lane has come to; where this step is validated, with metrics."""
    found: Sequence[dict[str, float] | None] = runs.validate() if validates else [None] * len(runs.lanes)
    for lane, metrics in zip(runs.lanes, found, strict=True):
        if not lane.ended:
            lane.note(metrics)
    if validates:
        runs.validated(step)


def end_all(lanes: Sequence[Lane], status: str) -> None:
    """Say of all that have not ended yet how they did."""
    for lane in lanes:
        lane.end(status)


def validates_at(step: int, recipe: Recipe) -> bool:
    """Whether `step` is one of the evenly spread validations; the last step is, unless there are none at all."""
    n = min(recipe.validations, recipe.steps)
    return (step * n) // recipe.steps > ((step - 1) * n) // recipe.steps


def training_mode(model: nn.Module, *, base_dropout: bool) -> None:
    """Switch on the dropout of what trains; the frozen base's own only where asked for."""
    model.train(base_dropout)
    for module in model.modules():
        if isinstance(module, Switched):
            module.train()
        if isinstance(module, AdaptedLayer):
            module.base_layer.train(base_dropout)

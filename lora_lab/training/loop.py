"""The training loop, plain enough to step through: one run, or many side by side on one frozen base."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch import nn

from lora_lab.adapter_layer import AdapterLayer
from lora_lab.methods.attach import Ahead
from lora_lab.training.batches import Batch
from lora_lab.training.evaluate import lane_losses, logits_of
from lora_lab.training.lane import Lane, end_all
from lora_lab.training.parts import in_parts
from lora_lab.training.products import products_in
from lora_lab.training.recipe import Recipe

Validate = Callable[[], Sequence[dict[str, float]]]  # the metrics of each lane
Leave = Callable[[Sequence[Lane]], tuple[nn.Module, Sequence[Lane]]]


def fit(
    model: nn.Module,
    lanes: Sequence[Lane],
    batches: Iterable[tuple[int, Batch]],
    validate: Validate,
    *,
    before: Validate | None = None,
    after: Callable[[int, bool], None] = lambda step, validated: None,
    leave: Leave | None = None,
    products: str = "fp32",
    stop: threading.Event | None = None,
) -> None:
    """Train all lanes, one batch of each a step, until the last of them has ended.

    model       answers for all lanes, whose rows stand one under the other in a batch
    batches     the steps still to come: (step, batch)
    before      as `validate`, before the first step
    after       called after every step, with whether it was validated
    leave       called with lanes that have ended while others train on: the model and the lanes that are left; a lane
                alone needs none
    products    as in `products_in`
    A lane whose loss or gradient is no longer a number ends as failed; the others go on, for no lane's rows meet
    another's.
    """
    recipe = lanes[0].recipe
    if recipe.validations and not any(lane.history.progress for lane in lanes):
        for lane, untrained in zip(lanes, (before or validate)(), strict=True):
            lane.history.before = untrained
    training_mode(model, base_dropout=recipe.dropout)
    model, lanes = _remaining(model, lanes, leave)  # lanes may come back from the disk as they ended
    for step, batch in () if all(lane.ended for lane in lanes) else batches:
        with products_in(products):
            in_parts(partial(update, step, batch, lanes), model, len(lanes))
        validates = validates_at(step, recipe)
        found: Sequence[dict[str, float] | None] = validate() if validates else [None] * len(lanes)
        for lane, metrics in zip(lanes, found, strict=True):
            if not lane.ended:
                lane.note(metrics)
        after(step, validates)
        if stop is not None and stop.is_set():
            end_all(lanes, "stopped")
        model, lanes = _remaining(model, lanes, leave)
        if all(lane.ended for lane in lanes):
            break
    end_all(lanes, "done")
    model.eval()


def update(step: int, batch: Batch, lanes: Sequence[Lane], model: nn.Module, own: slice) -> Sequence[Lane]:
    """Forward, backward and update for the lanes of one model."""
    recipe, rows = lanes[0].recipe, batch.of_lanes(own, len(lanes))
    losses = lane_losses(
        logits_of(model, rows), rows.labels, len(lanes[own]),
        smoothing=recipe.label_smoothing, token_mean=recipe.token_mean,
    )  # fmt: skip
    losses.sum().backward()
    for lane, loss in zip(lanes[own], losses.tolist(), strict=True):
        lane.update(step, loss)
        lane.clear_gradients()
    return lanes[own]


def _remaining(model: nn.Module, lanes: Sequence[Lane], leave: Leave | None) -> tuple[nn.Module, Sequence[Lane]]:
    """Where only some lanes have ended, they leave, and the others train on."""
    ended = [lane for lane in lanes if lane.ended]
    if len(ended) in (0, len(lanes)):
        return model, lanes
    assert leave is not None
    model, lanes = leave(ended)
    training_mode(model, base_dropout=lanes[0].recipe.dropout)
    return model, lanes


def validates_at(step: int, recipe: Recipe) -> bool:
    """Whether `step` is one of the evenly spread validations; the last step is, unless there are none at all."""
    n = min(recipe.validations, recipe.steps)
    return (step * n) // recipe.steps > ((step - 1) * n) // recipe.steps


def training_mode(model: nn.Module, *, base_dropout: bool) -> None:
    """Switch on the dropout of what trains; the frozen base's own only where asked for."""
    model.train(base_dropout)
    for module in model.modules():
        if isinstance(module, AdapterLayer | Ahead):
            module.train()
        if isinstance(module, AdapterLayer):
            module.base_layer.train(base_dropout)

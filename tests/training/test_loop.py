"""The training loop: what a step does, what callbacks see, and the ways in which it ends."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lora_lab import LoRA, Recipe
from lora_lab.training.loop import Progress
from tests.conftest import lora_layers, tiny
from tests.training.conftest import fit_alone, rows, training_batches


def setting(**changes) -> Recipe:
    return Recipe("tiny", "random", **{"steps": 6, "batch": 4, "validations": 3, "lr": 1e-2, **changes})


def member_of(recipe: Recipe, model: nn.Module | None = None, validate=None, callbacks=()):
    """Fit the tiny RoBERTa, with an adapter, to random rows."""
    if model is None:
        model = tiny("roberta")
        recipe.method.attach(model)
    torch.manual_seed(recipe.seed)
    batches = training_batches(rows(24), recipe.batch, recipe.steps, recipe.seed, pad=1)
    return fit_alone(recipe, model, batches, validate or (lambda: {"accuracy": 0.5}), callbacks)


def run(*arguments, **options) -> None:
    """Fit a member, which ends well."""
    assert member_of(*arguments, **options).error is None


def test_callbacks_see_each_step_with_its_rate_and_the_validations():
    seen: list[Progress] = []
    recipe = setting()
    member = member_of(recipe, callbacks=[seen.append])
    history = member.history
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert [p.lr for p in seen] == [recipe.lr_at(step) for step in range(1, 7)]
    assert [p.step for p in seen if p.validation] == [2, 4, 6]
    assert all(math.isfinite(p.loss) for p in seen)
    assert history.progress == seen
    assert member.status == "done"
    assert history.columns()["validation"] == [{"step": step, "accuracy": 0.5} for step in (2, 4, 6)]


def test_the_first_step_moves_b_by_the_rate():
    """Adam's first step is the rate times the gradient's sign, wherever there is a gradient."""
    model, recipe = tiny("roberta"), setting(steps=1, lr=1e-3)
    recipe.method.attach(model)
    run(recipe, model)
    moved = torch.cat([layer.lora_B.abs().flatten() for layer in lora_layers(model)])
    assert moved.median().item() == pytest.approx(1e-3, rel=0.01)
    assert moved.max() <= 1.01e-3


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_gradients_are_clipped_to_the_norm_asked_for(clip):
    norms = []

    def measure(optimizer, *_):
        gradients = [
            p.grad.flatten() for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norms.append(torch.cat(gradients).norm().item())

    hook = register_optimizer_step_pre_hook(measure)
    try:
        run(setting(clip=clip))
    finally:
        hook.remove()
    assert len(norms) == 6
    assert (max(norms) <= 0.0501) == bool(clip)


@pytest.mark.parametrize("base_dropout", [False, True])
def test_the_adapters_dropout_is_on_while_training_and_the_bases_only_where_asked(base_dropout):
    model, modes = tiny("roberta"), {}
    recipe = setting(dropout=base_dropout, steps=2, method=LoRA(rank=2, dropout=0.1))
    recipe.method.attach(model)
    parts = {
        "base": model.roberta.embeddings.dropout,
        "adapter": next(iter(lora_layers(model))).dropout,
        "head": model.classifier.trained.dropout,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda module, *_, name=name: modes.update({name: module.training}))
    run(recipe, model)
    assert modes == {"base": base_dropout, "adapter": True, "head": True}
    assert not any(module.training for module in model.modules())  # afterwards it answers, without dropout


@pytest.mark.parametrize(
    ("patience", "metrics", "last"),
    [
        (0, [0.5] * 6, 6),
        (1, [0.5, 0.5, 0.9, 0.9, 0.9, 0.9], 2),
        (2, [0.5, 0.5, 0.6, 0.4, 0.6, 0.9], 5),
        (3, [0.5, 0.4, 0.4, 0.6, 0.6, 0.6], 6),
    ],
)
def test_patience_stops_after_so_many_validations_without_a_better_one(patience, metrics, last):
    values = iter(metrics)
    member = member_of(setting(patience=patience, validations=6), validate=lambda: {"accuracy": next(values)})
    assert member.history.progress[-1].step == last
    assert member.status == ("early" if last < 6 else "done")


def test_a_loss_that_is_no_number_names_the_step_and_the_rate():
    member = member_of(setting(lr=1e30))
    assert member.status == "failed"
    assert re.search(r"the loss became nan at step \d.*lower the rate \(lr was 1e\+30\)", member.error)


def test_an_update_that_ruins_the_weights_fails_at_the_next_validation():
    losses = iter([math.nan])
    member = member_of(setting(steps=1), validate=lambda: {"accuracy": 0.5, "loss": next(losses)})
    assert "validation loss became nan at step 1: lower the rate" in member.error

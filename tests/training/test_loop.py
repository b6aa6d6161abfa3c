"""Tests of the training loop: updates, dropout, and how a run ends."""

import math
import re

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lora_lab import LoRA, Recipe
from lora_lab.training.loop import Member, fit
from tests.conftest import lora_layers, tiny
from tests.training.conftest import rows, training_batches


def train(model: nn.Module | None = None, validate=lambda: {"accuracy": 0.5}, **changes) -> Member:
    """Train the tiny RoBERTa with an adapter on random rows."""
    recipe = Recipe("tiny", "random", **{"steps": 6, "batch": 4, "validations": 3, "lr": 1e-2, **changes})
    if model is None:
        model = tiny("roberta")
        recipe.method.attach(model)
    torch.manual_seed(recipe.seed)
    member = Member(recipe, model)
    fit(member, enumerate(training_batches(rows(24), recipe.batch, recipe.steps, recipe.seed, pad=1), 1), validate)
    return member


def test_first_step_moves_b_by_the_learning_rate():
    """Adam's first update is the rate times the gradient's sign."""
    moved = torch.cat([layer.lora_B.abs().flatten() for layer in lora_layers(train(steps=1, lr=1e-3).model)])
    assert moved.median().item() == pytest.approx(1e-3, rel=0.01)
    assert moved.max() <= 1.01e-3


def test_gradients_are_clipped():
    norms = []

    def measure(optimizer, *_):
        gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).norm().item())

    hook = register_optimizer_step_pre_hook(measure)
    try:
        train(clip=0.05)
        train(clip=0.0)
    finally:
        hook.remove()
    assert len(norms) == 12
    assert max(norms[:6]) <= 0.0501 < max(norms[6:])


@pytest.mark.parametrize("base_dropout", [False, True])
def test_dropout_is_active_in_adapters_and_optional_in_the_base(base_dropout):
    model, modes = tiny("roberta"), {}
    method = LoRA(rank=2, dropout=0.1)
    method.attach(model)
    parts = {
        "base": model.roberta.embeddings.dropout,
        "adapter": lora_layers(model)[0].dropout,
        "head": model.classifier.trained.dropout,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda module, *_, name=name: modes.update({name: module.training}))
    train(model, dropout=base_dropout, steps=2, method=method)
    assert modes == {"base": base_dropout, "adapter": True, "head": True}
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("patience", "metrics", "last"),
    [(0, [0.5] * 6, 6), (1, [0.5, 0.5, 0.9, 0.9, 0.9, 0.9], 2), (2, [0.5, 0.5, 0.6, 0.4, 0.6, 0.9], 5)],
)
def test_patience_counts_validations_without_improvement(patience, metrics, last):
    values = iter(metrics)
    member = train(patience=patience, validations=6, validate=lambda: {"accuracy": next(values)})
    assert member.history["step"][-1] == last
    assert member.status == ("early" if last < 6 else "done")


def test_nan_loss_fails_the_run():
    member = train(lr=1e30)
    assert member.status == "failed"
    assert re.search(r"the loss became nan at step \d.*lower the rate \(lr was 1e\+30\)", member.error)
    member = train(steps=1, validate=lambda: {"accuracy": 0.5, "loss": math.nan})  # the last update ruined the weights
    assert "validation loss became nan at step 1: lower the rate" in member.error

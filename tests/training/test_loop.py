"""The training loop: what a step does, what callbacks see, and the ways in which it ends."""

import math
import re

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lora_lab import LoRA, Recipe
from lora_lab.training.loop import Member, Progress, fit
from tests.conftest import lora_layers, tiny
from tests.training.conftest import rows, training_batches


def fitted(model: nn.Module | None = None, validate=lambda: {"accuracy": 0.5}, callbacks=(), **changes) -> Member:
    """Fit the tiny RoBERTa, with an adapter, to random rows."""
    recipe = Recipe("tiny", "random", **{"steps": 6, "batch": 4, "validations": 3, "lr": 1e-2, **changes})
    if model is None:
        model = tiny("roberta")
        recipe.method.attach(model)
    torch.manual_seed(recipe.seed)
    member = Member(recipe, model, callbacks)
    fit(member, enumerate(training_batches(rows(24), recipe.batch, recipe.steps, recipe.seed, pad=1), 1), validate)
    return member


def test_callbacks_see_each_step_with_its_rate_and_the_validations():
    seen: list[Progress] = []
    member = fitted(callbacks=[seen.append])
    history = member.history
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert [p.lr for p in seen] == [member.recipe.lr_at(step) for step in range(1, 7)]
    assert [p.step for p in seen if p.validation] == [2, 4, 6]
    assert all(math.isfinite(p.loss) for p in seen)
    assert [p.loss for p in seen] == history["loss"]
    assert member.status == "done"
    assert history["validation"] == [{"step": step, "accuracy": 0.5} for step in (2, 4, 6)]


def test_the_first_step_moves_b_by_the_rate():
    """Adam's first step is the rate times the gradient's sign, wherever there is a gradient."""
    moved = torch.cat([layer.lora_B.abs().flatten() for layer in lora_layers(fitted(steps=1, lr=1e-3).model)])
    assert moved.median().item() == pytest.approx(1e-3, rel=0.01)
    assert moved.max() <= 1.01e-3


def test_gradients_are_clipped_to_the_norm_asked_for():
    norms = []

    def measure(optimizer, *_):
        gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).norm().item())

    hook = register_optimizer_step_pre_hook(measure)
    try:
        for clip in (0.05, 0.0):
            fitted(clip=clip)
    finally:
        hook.remove()
    assert len(norms) == 12
    assert max(norms[:6]) <= 0.0501 < max(norms[6:])


@pytest.mark.parametrize("base_dropout", [False, True])
def test_the_adapters_dropout_is_on_while_training_and_the_bases_only_where_asked(base_dropout):
    model, modes = tiny("roberta"), {}
    method = LoRA(rank=2, dropout=0.1)
    method.attach(model)
    parts = {
        "base": model.roberta.embeddings.dropout,
        "adapter": next(iter(lora_layers(model))).dropout,
        "head": model.classifier.trained.dropout,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda module, *_, name=name: modes.update({name: module.training}))
    fitted(model, dropout=base_dropout, steps=2, method=method)
    assert modes == {"base": base_dropout, "adapter": True, "head": True}
    assert not any(module.training for module in model.modules())  # afterwards it answers, without dropout


PATIENCE = [(0, [0.5] * 6, 6), (1, [0.5, 0.5, 0.9, 0.9, 0.9, 0.9], 2), (2, [0.5, 0.5, 0.6, 0.4, 0.6, 0.9], 5)]


@pytest.mark.parametrize(("patience", "metrics", "last"), PATIENCE)
def test_patience_stops_after_so_many_validations_without_a_better_one(patience, metrics, last):
    values = iter(metrics)
    member = fitted(patience=patience, validations=6, validate=lambda: {"accuracy": next(values)})
    assert member.history["step"][-1] == last
    assert member.status == ("early" if last < 6 else "done")


def test_a_loss_that_is_no_number_names_the_step_and_the_rate():
    member = fitted(lr=1e30)
    assert member.status == "failed"
    assert re.search(r"the loss became nan at step \d.*lower the rate \(lr was 1e\+30\)", member.error)
    member = fitted(steps=1, validate=lambda: {"accuracy": 0.5, "loss": math.nan})  # its update ruined the weights
    assert "validation loss became nan at step 1: lower the rate" in member.error

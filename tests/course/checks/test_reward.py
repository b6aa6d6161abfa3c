from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch

from lora_course.checks.reward import BITS
from lora_course.experiments.reward import Rewarded, halves_found, reinforce
from lora_lab import LoRA, Recipe, load_model
from lora_lab.training.pack import Pack

RIGHT = [("loss_of_rewards", (reinforce,)), ("bits", (BITS.right,))]
WRONG = [
    ("loss_of_rewards", (lambda log_p, rewards: -reinforce(log_p, rewards),), "wrong sign"),
    ("loss_of_rewards", (lambda log_p, rewards: -(rewards * log_p).mean(),), "subtract the mean reward"),
    ("loss_of_rewards", (lambda log_p, rewards: len(rewards) * reinforce(log_p, rewards),), "the sum over the batch"),
    ("loss_of_rewards", (lambda log_p, rewards: reinforce(log_p.exp(), rewards),), "take log_p"),
    ("loss_of_rewards", (lambda log_p, rewards: reinforce(log_p, rewards) / (rewards.std() + 1e-4),), "GRPO's scaling"),
    ("loss_of_rewards", (lambda log_p, rewards: -(rewards - rewards.mean()).mean() * log_p.mean(),), "inside the mean"),
    ("loss_of_rewards", (lambda log_p, rewards: log_p.mean(),), "put a minus in front"),
    ("bits", (lambda p: -torch.tensor(p).log2(),), "what a success tells"),
    ("bits", (lambda p: 1.0,), "nearly always guess"),
    ("bits", (lambda p: BITS.right(p) * 0.6931472,), "take log2"),
    ("bits", (lambda p: -BITS.right(p),), "wrong sign"),
    ("bits", (lambda p: -p * torch.tensor(p).log2(),), "only the first half"),
    ("bits", (lambda p: p,), "both outcomes"),
]


def test_expected_gradient_is_that_of_the_probability_of_being_right():
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    p, rewards = logits.softmax(-1), torch.tensor([0.0, 0.0, 1.0])
    (expected,) = torch.autograd.grad(p[2], logits, retain_graph=True)
    batches = [list(batch) for batch in product(range(3), repeat=2)]  # every two sampled labels
    loss = sum(p[batch].detach().prod() * reinforce(p[batch].log(), rewards[batch]) for batch in batches)
    (actual,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(actual, -expected / 2, atol=1e-6)  # the mean of n rewards as baseline scales by 1 - 1 / n
    assert float(reinforce(p.detach().log(), torch.ones(3))) == 0


def test_training_learns_from_rewards_alone_and_packing_changes_nothing(recipe: Callable[..., Recipe]):
    recipes = [recipe(method=LoRA(rank=2), lr=2e-2, steps=80, validations=0, seed=seed) for seed in (0, 1)]
    pack, alone = Rewarded(recipes), Rewarded(recipes[1:])
    packed, (run,) = pack.run(), alone.run()
    assert [run.metrics["accuracy"] for run in packed] == [1.0, 1.0]
    assert run.history["loss"] == pytest.approx(packed[1].history["loss"], abs=1e-3)
    assert (rewards := alone.rewards[recipes[1]]) == pack.rewards[recipes[1]]
    assert len(rewards) == 80
    assert sum(rewards[-10:]) > sum(rewards[:10])
    assert Pack([replace(recipes[1], steps=2)]).run()[0].history["loss"][0] != run.history["loss"][0]  # from labels


@pytest.mark.filterwarnings("ignore:lr 1e")
def test_diverging_run_fails(recipe: Callable[..., Recipe]):
    assert [run.status for run in Rewarded([recipe(lr=1e20, clip=0.0)]).run()] == ["failed"]


def test_untrained_model_finds_halves_of_passages():
    assert halves_found(load_model("minilm", 2), passages=16) > 0.3

"""The checks of lesson 17: answers for `test_checks`, and what rewards teach without a label."""

import pytest
import torch

from lora_course.checks.reward import BITS
from lora_course.experiments.reward import Rewarded, halves_found, reinforce
from lora_lab import LoRA, Recipe, load_model
from lora_lab.training.pack import Pack

RIGHT = {"loss_of_rewards": (reinforce,), "bits": (BITS.right,)}
WRONG = [
    ("loss_of_rewards", (lambda log_p, rewards: -reinforce(log_p, rewards),), "the sign"),
    ("loss_of_rewards", (lambda log_p, rewards: -(rewards * log_p).mean(),), "subtract the mean reward"),
    ("loss_of_rewards", (lambda log_p, rewards: len(rewards) * reinforce(log_p, rewards),), "the sum over the batch"),
    ("loss_of_rewards", (lambda log_p, rewards: reinforce(log_p.exp(), rewards),), "take log_p"),
    ("loss_of_rewards", (lambda log_p, rewards: -(rewards - rewards.mean()).mean() * log_p.mean(),), "inside the mean"),
    ("loss_of_rewards", (lambda log_p, rewards: log_p.mean(),), "put a minus in front"),
    ("bits", (lambda p: -torch.tensor(p).log2(),), "what a success tells"),
    ("bits", (lambda p: 1.0,), "nearly always right"),
    ("bits", (lambda p: BITS.right(p) * 0.6931472,), "take log2"),
    ("bits", (lambda p: -BITS.right(p),), "the sign"),
    ("bits", (lambda p: -p * torch.tensor(p).log2(),), "only the first half"),
    ("bits", (lambda p: p,), "both outcomes"),
]


def test_on_average_its_gradient_is_that_of_the_probability_of_being_right():
    """Whatever the baseline: E[(r - b) grad log p(a)] = grad p(right)."""
    logits = torch.tensor([0.3, -0.2, 0.9], requires_grad=True)
    p = logits.softmax(-1)
    (wanted,) = torch.autograd.grad(p[2], logits, retain_graph=True)
    for baseline in (0.0, 0.7):
        rewards = torch.tensor([0.0, 0.0, 1.0]) - baseline
        (found,) = torch.autograd.grad((p.detach() * rewards * p.log()).sum(), logits, retain_graph=True)
        assert torch.allclose(found, wanted, atol=1e-6)
    assert float(reinforce(p.log().detach(), torch.ones(3))) == 0.0


def recipes(task: str, **fields) -> list[Recipe]:
    own = {"steps": 40, "batch": 8, "validations": 0, "lr": 2e-3, "dtype": "fp32", "attention": "sdpa", "device": "cpu"}
    return [Recipe("minilm", task, LoRA(rank=1), seed=seed, **own | fields) for seed in (0, 1)]


@pytest.fixture
def films(tmp_path) -> str:
    """Forty easy reviews."""
    rows = [f"film {n}: {word},{word}" for n in range(20) for word in ("wonderful", "terrible")]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]))
    return str(tmp_path / "films.csv")


def test_it_learns_from_rewards_alone_and_packed_is_as_alone(films):
    together = Rewarded(recipes(films))
    packed = together.run()
    assert [run.metrics["accuracy"] for run in packed] == [1.0, 1.0]
    alone = Rewarded(recipes(films)[1:])
    (run,) = alone.run()
    assert run.history["loss"] == pytest.approx(packed[1].history["loss"], abs=1e-3)
    rewards = alone.rewards[run.recipe]
    assert rewards == together.rewards[run.recipe]
    assert len(rewards) == 40
    assert sum(rewards[-10:]) > sum(rewards[:10])
    (labeled,) = Pack(recipes(films, steps=2)[1:]).run()
    assert labeled.history["loss"][0] != run.history["loss"][0]


def test_a_run_that_diverges_fails_and_says_so(films):
    assert {run.status for run in Rewarded(recipes(films, lr=1e20, clip=0.0)).run()} == {"failed"}


def test_the_untrained_model_finds_halves_of_passages():
    assert halves_found(load_model("minilm", 2), passages=32) > 0.3

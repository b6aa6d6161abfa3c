"""Exercises for lesson 17 (one bit): the loss of a policy gradient, and the reward of a model that is unsure."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lora_course.checks.verdict import Function, Verdict, attempt, exercise
from lora_course.experiments.reward import reinforce

BATCHES = [([0.5, 0.9, 0.4], [1.0, 0.0, 1.0]), ([0.2, 0.6, 0.7, 0.3], [0.0, 1.0, 1.0, 1.0]), ([0.5, 0.8], [0.0, 1.0])]
LOSS = Function(
    cases=[(torch.tensor(p).log(), torch.tensor(rewards)) for p, rewards in BATCHES],
    right=lambda log_p, rewards: float(reinforce(log_p, rewards)),
    why="if all answers are right, the loss is 0, and so is the gradient, because there is nothing to compare",
    near={
        "wrong sign: the optimizer minimizes the loss": lambda log_p, rewards: -float(reinforce(log_p, rewards)),
        "without the baseline, the gradient is correct on average, but right answers count even if all are right: "
        "subtract the mean reward": lambda log_p, rewards: -float((rewards * log_p).mean()),
        "that's the sum over the batch: take the mean": lambda log_p, r: len(r) * float(reinforce(log_p, r)),
        "that's GRPO's scaling: here, an answer twice as far from the mean counts twice as much, so don't divide by "
        "the standard deviation": lambda log_p, r: float(reinforce(log_p, r) / r.std()),
        "that uses p: take log_p": (lambda log_p, rewards: -float(((rewards - rewards.mean()) * log_p.exp()).mean())),
        "multiply inside the mean: the product of two means isn't the mean of the products": (
            lambda log_p, rewards: -float((rewards - rewards.mean()).mean() * log_p.mean())
        ),
    },
    fallback="for log_p = [-1, -2] and rewards = [1, 0], the loss is -0.25: find which of your steps differs",
)
EARNED = Function(
    cases=[(0.6, 0.6), (1.0, 0.6), (0.5, 0.9), (0.2, 0.3)],
    right=lambda p, q: p * q + (1 - p) * (1 - q),
    why="at q = 0.6, p = 0.6 earns 0.52 and p = 1 earns 0.6: doubt costs reward, even if it is justified",
    near={
        'that is only the first half: "negative" is sometimes right, too': lambda p, q: p * q,
        "that counts the wrong answers": lambda p, q: p * (1 - q) + (1 - p) * q,
        'that is how often "positive" is said: how often is it also right?': lambda p, q: p,
        'that is the reward if the model always says "positive"': lambda p, q: q,
        "that is the largest mean reward, for the best p: use the p that is given": lambda p, q: max(q, 1 - q),
    },
    fallback='try p = 1: the model always says "positive", and a share q of its answers is right',
)


def _judge(loss: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    verdict, (log_p, rewards) = LOSS.judge(loss), LOSS.cases[0]
    if verdict.passed and not getattr(loss(log_p.clone().requires_grad_(), rewards), "requires_grad", False):
        return Verdict(False, "no gradient reaches log_p: leave out detach, item and float", right=LOSS)
    return verdict


def loss_or_ours(loss: Any) -> Any:
    """Return the student's loss if it passes the check; otherwise, return the lab's."""
    return attempt(_judge, loss).yours_or_ours("loss_of_rewards", loss, reinforce)


@exercise
def check_loss_of_rewards(loss: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Lesson 17: check a policy gradient's loss from the log-probabilities and rewards of answers, both (rows,)."""
    return _judge(loss)


@exercise
def check_mean_reward(mean_reward: Callable[[float, float], float]) -> Verdict:
    """Lesson 17: check f(p, q), the mean reward for saying "positive" with probability p if a share q is positive."""
    return EARNED.judge(mean_reward)

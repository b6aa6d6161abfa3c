"""Exercises for lesson 17 (one bit): the loss of a policy gradient, and how many bits "right or wrong" carries."""

from collections.abc import Callable
from math import log, log2

import torch
from torch import Tensor

from lora_course.checks.verdict import Function, Verdict, exercise
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
    fallback="for log_p = [-1, -2] and rewards = [1, 0], the loss is -0.25: find the step of yours that differs",
)
BITS = Function(
    cases=[(0.5,), (0.9,), (0.01,), (0.75,)],
    right=lambda p: -p * log2(p) - (1 - p) * log2(1 - p),
    why="one bit at p = 0.5, but 0.08 at p = 0.01: if a model is almost always wrong, hearing so tells you little",
    near={
        "that is what a success tells you: a failure tells you log2(1 / (1 - p)); take the mean": lambda p: -log2(p),
        "those are nats: for bits, take log2": lambda p: -p * log(p) - (1 - p) * log(1 - p),
        "one bit is the maximum, at p = 0.5: what if you can nearly always guess the outcome?": lambda p: 1.0,
        "that is only the first half: a failure tells you something, too": lambda p: -p * log2(p),
        "wrong sign: log2 of a probability is negative": lambda p: p * log2(p) + (1 - p) * log2(1 - p),
    },
    fallback="try p = 0.5: two equally likely outcomes tell you 1 bit; take the mean of what both outcomes tell you",
)


@exercise
def check_loss_of_rewards(loss: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """Lesson 17: check a policy gradient's loss from the log-probabilities and rewards of answers, both (rows,)."""
    verdict, (log_p, rewards) = LOSS.judge(loss), LOSS.cases[0]
    if verdict.passed and not getattr(loss(log_p.clone().requires_grad_(), rewards), "requires_grad", False):
        return Verdict(False, "no gradient reaches log_p: leave out detach, item and float", right=LOSS)
    return verdict


@exercise
def check_bits(bits: Callable[[float], float]) -> Verdict:
    """Lesson 17: check f(p), the bits that "right or wrong" carries, if the probability of being right is p."""
    return BITS.judge(bits)

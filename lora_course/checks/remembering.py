"""Exercise for lesson 19 (how much can it learn): compute from a model's loss how many coin flips it remembers."""

from collections.abc import Callable
from math import exp, log

from lora_course.checks.verdict import Function, Verdict, exercise

REMEMBERED = Function(
    cases=[(256, 0.35), (2048, 0.5), (512, 0.0), (1000, 0.1)],
    right=lambda n, loss: n * (1 - loss / log(2)),
    why="at a loss of ln 2, the model knows no flip; at 0, it knows all; at 0.2, it knows 364 bits of 512 flips",
    near={
        "the loss is in nats, and a flip has ln 2 = 0.69 nats": lambda n, loss: n * (1 - loss),
        "that is still in nats: one bit is ln 2 nats": lambda n, loss: n * (log(2) - loss),
        "that is what the model doesn't know": lambda n, loss: n * loss / log(2),
        "exp(-loss) is a probability, and guessing already gives 1/2": lambda n, loss: n * exp(-loss),
    },
    fallback="each flip is one bit: loss / ln 2 of it is unknown, and the rest is remembered",
    within=0.02,
)


@exercise
def check_remembered(remembered: Callable[[int, float], float]) -> Verdict:
    """Lesson 19: check f(n, loss), how many bits of n coin flips a model remembers, given its mean loss in nats."""
    return REMEMBERED.judge(remembered)

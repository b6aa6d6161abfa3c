"""What fits: the largest batch, the longest sequence and the largest model that the closed form leaves room for.

Bytes grow with batch and length, so the largest of either is found by doubling and then halving the interval. The
closed form takes under a millisecond; a search takes a few dozen of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from lora_lab.accounting.estimates import Estimate
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import Architecture, architecture_of
from lora_lab.accounting.plan import Plan, Plans
from lora_lab.accounting.setup import Setup
from lora_lab.errors import BadValue, LabError

LEARNED_POSITIONS = ("bert", "roberta", "xlm-roberta", "gpt2", "gpt3")
PADDED = ("roberta", "xlm-roberta")
OFFSET = 2  # rows of RoBERTa's table of positions that no token uses: they belong to padding


def fits(estimated: Estimate, available: int) -> bool:
    """Whether a step's peak is within so many bytes."""
    return estimated.peak <= available


def longest(a: Architecture, plan: Plan | None = None) -> int | None:
    """Tokens a row that a table of learned positions allows, a soft prompt's taken off; None without such a table.

    Rotary positions have no end of their own: a model trained for 8,192 tokens computes on longer rows, badly.
    """
    if a.model_type not in LEARNED_POSITIONS:
        return None
    return a.positions - OFFSET * (a.model_type in PADDED) - (plan.prompt if plan else 0)


def check_length(a: Architecture, plan: Plan, setup: Setup) -> None:
    """Raises: BadValue for rows longer than the model's table of positions."""
    most = longest(a, plan)
    if most is not None and setup.seq > most:
        beside = f" beside a prompt of {plan.prompt}" if plan.prompt else ""
        raise BadValue(f"seq {setup.seq} is above the {most} tokens that {a.name} can read{beside}")


def largest(
    field: str, setup: Setup, estimated: Callable[[Setup], Estimate], available: int, limit: int | None = None
) -> int | None:
    """The most rows ("batch"), or tokens a row ("seq"), with which a step fits; None when not even 1 does.

    estimated  the memory of a set-up: `partial(estimate, a, plan)`. What it raises is raised
    limit      of tokens: what `longest` says
    """

    def fit(n: int) -> bool:
        changed: dict[str, Any] = {field: n}
        return fits(estimated(replace(setup, **changed)), available)

    return most(fit, limit)


def most(fit: Callable[[int], bool], limit: int | None = None) -> int | None:
    """The largest n >= 1 (and <= limit) for which `fit` holds, when it holds up to some n and no further; else None."""
    if (limit is not None and limit < 1) or not fit(1):
        return None
    low, high = 1, 2
    while (limit is None or high <= limit) and fit(high):
        low, high = high, 2 * high
    high = high if limit is None else min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit(middle) else (low, middle)
    return low


def largest_model(method: Plans, setup: Setup, available: int, names: Iterable[str]) -> str | None:
    """The model of these with the most parameters that the method can train in `available` bytes; None where none fits.

    Models whose memory is not modelled, that lack the method's targets or cannot read rows so long are passed over.
    """
    fitting: dict[str, int] = {}
    for name in names:
        a = architecture_of(name)
        with suppress(LabError):
            plan = method.plan(a)
            check_length(a, plan, setup)
            if fits(estimate(a, plan, setup), available):
                fitting[name] = a.total
    return max(fitting, key=lambda name: fitting[name], default=None)

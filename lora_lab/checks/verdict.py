"""What a check answers, and what all checks share: numbers compared, functions tried, "not yet" said."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from lora_lab.errors import LabError


@dataclass(frozen=True)
class Verdict:
    """What a check has to say; `passed` is None while the exercise is unsolved."""

    passed: bool | None
    words: str

    def __repr__(self) -> str:
        return f"{ {True: 'right', False: 'not right', None: 'not yet'}[self.passed] }: {self.words}"


def number(answer: Any, right: float, hints: Mapping[Any, str], why: str, within: float = 1e-6) -> Verdict:
    """Right within a relative error, and then why; else the hint beside the wrong number that it is nearly."""
    if not isinstance(answer, Real):
        return Verdict(False, f"a number is wanted, not {type(answer).__name__}")
    answer = float(answer)
    if math.isclose(answer, right, rel_tol=within):
        return Verdict(True, why)
    return Verdict(
        False, next((h for value, h in hints.items() if math.isclose(answer, value, rel_tol=0.02)), "not that")
    )


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a student's function returns, or a verdict: unsolved when it returns None, wrong when it raises."""
    try:
        value = function(*arguments)
    except LabError:
        raise
    except Exception as error:
        return Verdict(False, f"it stops with {type(error).__name__}: {error}{_hint(error)}")
    if unsolved(value):
        return not_yet("the function returns nothing yet")
    return value.item() if getattr(value, "ndim", None) == 0 else value  # one number of numpy's or torch's


def _hint(error: Exception) -> str:
    """What students usually meant where Python's own words do not say it."""
    if isinstance(error, TypeError) and ("xor" in str(error) or "^" in str(error)):
        return " (a power is written **, not ^)"
    if isinstance(error, IndexError):
        return " (s[r] is one number, the one after the r-th; s[:r] are the first r)"
    return ""


def close(values: Sequence[Any], right: Sequence[float]) -> bool:
    """Whether all are numbers, and the right ones to a thousandth."""
    return all(
        isinstance(v, Real) and math.isclose(float(v), r, rel_tol=1e-3) for v, r in zip(values, right, strict=True)
    )


def unsolved(answer: object) -> bool:
    """Whether the exercise still holds what it came with: None or `...`."""
    return answer is None or answer is ...


def not_yet(hint: str) -> Verdict:
    """The verdict on an unsolved exercise: where to begin."""
    return Verdict(None, hint)

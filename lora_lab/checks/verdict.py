"""What a check answers, and what all checks share: numbers compared, functions tried, "not yet" said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def number(
    answer: Any, right: float, hints: Mapping[Any, str], why: str, within: float = 1e-6, fallback: str = "not that"
) -> Verdict:
    """Right within a relative error, and then why; else the hint beside the wrong number that it is nearly."""
    if not isinstance(answer, Real):
        return Verdict(False, f"a number is wanted, not {type(answer).__name__}")
    answer = float(answer)
    if math.isclose(answer, right, rel_tol=within):
        return Verdict(True, why)
    known = (hint for value, hint in hints.items() if math.isclose(answer, value, rel_tol=0.02))
    return Verdict(False, next(known, fallback))


def choice(answer: Any, right: str, replies: Mapping[str, str], hint: str = "put a letter in place of ...") -> Verdict:
    """Right for one of the letters, and a reply to each; `hint` while there is none."""
    if unsolved(answer):
        return not_yet(hint)
    given = str(answer).strip(" .,:;()'\"").lower()
    if given not in replies:
        return Verdict(False, f"answer with one of {', '.join(replies)}")
    return Verdict(given == right, replies[given])


def values_of(function: Callable[..., Any], cases: Iterable[Sequence[Any]]) -> list[Any] | Verdict:
    """What a student's function returns for each case, or the first verdict of `attempt`."""
    values = [attempt(function, *case) for case in cases]
    return next((value for value in values if isinstance(value, Verdict)), values)


def matched(
    values: Sequence[Any], right: Sequence[float], why: str, near: Mapping[str, Sequence[float]], fallback: str,
    within: float = 1e-3,
) -> Verdict:  # fmt: skip
    """Right where all values are, and then why; else the words beside the wrong ones that they are, or `fallback`."""
    if close(values, right, within):
        return Verdict(True, why)
    return Verdict(False, next((words for words, wrong in near.items() if close(values, wrong, within)), fallback))


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


def close(values: Sequence[Any], right: Sequence[float], within: float = 1e-3) -> bool:
    """Whether all are numbers, and the right ones within a relative error."""
    pairs = zip(values, right, strict=True)
    return all(isinstance(v, Real) and math.isclose(float(v), r, rel_tol=within) for v, r in pairs)


def unsolved(answer: object) -> bool:
    """Whether the exercise still holds what it came with: None or `...`."""
    return answer is None or answer is ...


def not_yet(hint: str) -> Verdict:
    """The verdict on an unsolved exercise: where to begin."""
    return Verdict(None, hint)

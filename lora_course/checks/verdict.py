"""What a check answers, and what all checks share: numbers compared, functions tried, "not yet" said, tries counted.

    @exercise("a first hint", "a second", "a third, nearly the answer")
    def check_pairs(answer: int | None, n: int = 8) -> Verdict:
        return number(answer, n * (n - 1) / 2, {n * n: "that pairs each with itself"}, "n (n - 1) / 2")

What varies by student comes as an argument, drawn in the lesson by `lesson.draw`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import wraps
from numbers import Real
from typing import Any, ParamSpec

from lora_course.receipts import CURRENT, Check

Given = ParamSpec("Given")


@dataclass(frozen=True)
class Verdict:
    """What a check has to say; `passed` is None while the exercise is unsolved."""

    passed: bool | None
    words: str
    hint: str = ""

    def __repr__(self) -> str:
        said = f"{ {True: 'right', False: 'not right', None: 'not yet'}[self.passed] }: {self.words}"
        return f"{said}\n{self.hint}" if self.hint else said


def exercise(*hints: str) -> Callable[[Callable[Given, Verdict]], Callable[Given, Verdict]]:
    """A check whose tries are counted for the receipt; each wrong answer is given the next hint, at last the last."""

    def counted(check: Callable[Given, Verdict]) -> Callable[Given, Verdict]:
        @wraps(check)
        def asked(*arguments: Given.args, **by_name: Given.kwargs) -> Verdict:
            verdict = check(*arguments, **by_name)
            mine = CURRENT.checks.setdefault(check.__name__.removeprefix("check_"), Check())
            if not mine.passed:
                mine.passed, mine.tries = bool(verdict.passed), mine.tries + (verdict.passed is not None)
            if verdict.passed is not False or not hints:
                return verdict
            place = min(max(mine.tries, 1), len(hints))
            return replace(verdict, hint=f"Hint {place} of {len(hints)}: {hints[place - 1]}")

        return asked

    return counted


def number(
    answer: Any, right: float, misconceptions: Mapping[Any, str], why: str, within: float = 1e-6, fallback: str = "",
    hint: str = "put a number in place of ...",
) -> Verdict:  # fmt: skip
    """Right within a relative error or its own rounding, and then why; `hint` while there is none.

    Else the words beside the wrong number that it is nearly, unless the right one is nearer, or beside the first
    function that is true of it; else `fallback`, or how far off it is.
    """
    if unsolved(answer):
        return not_yet(hint)
    if not isinstance(answer, Real):
        return Verdict(False, f"a number is wanted, not {type(answer).__name__}")
    given = _as_float(answer)
    if math.isclose(given, right, rel_tol=within) or math.isclose(given, right, abs_tol=_rounding(given)):
        return Verdict(True, why)
    wrong = [one for one in misconceptions if not callable(one) and math.isclose(given, one, rel_tol=0.02)]
    nearest = min(wrong, key=lambda one: abs(given - one), default=math.inf)
    if abs(given - nearest) <= abs(given - right):
        return Verdict(False, misconceptions[nearest])
    said = (words for one, words in misconceptions.items() if callable(one) and one(given))
    return Verdict(False, next(said, fallback or _how_far(given, right)))


def _as_float(number: Real) -> float:
    try:
        return float(number)
    except OverflowError:  # whole numbers of Python's have no largest one
        return math.inf


def _rounding(given: float) -> float:
    """Half a unit of the last decimal of an answer that was rounded to one or two decimals; at least three figures."""
    return next((0.5 * 10**-n for n in (1, 2) if given == round(given, n) and given * 10**n >= 100), 0.0)


def _how_far(given: float, right: float) -> str:
    factor = given / right
    if not 0 < factor < math.inf:
        return f"not that: it is a finite number {'above' if right > 0 else 'below'} zero"
    if 0.97 < factor < 1.03:
        return "nearly: give one more digit, or write the formula and let Python compute"
    words = f"{factor:,.3g} times too large" if factor > 1 else f"{1 / factor:,.3g} times too small"
    return f"not that: it is {words}"


def choice(answer: Any, right: str, replies: Mapping[str, str], hint: str = "put a letter in place of ...") -> Verdict:
    """Right for one of the letters, and a reply to each; `hint` while there is none."""
    if unsolved(answer):
        return not_yet(hint)
    given = str(answer).strip(" .,:;()'\"").lower()
    if given not in replies:
        return Verdict(False, f"answer with one of {', '.join(replies)}")
    return Verdict(given == right, replies[given])


def numbers(
    answers: Sequence[Any], right: Sequence[float], why: str, near: Mapping[str, Sequence[float]], fallback: str,
    within: float = 1e-3, hint: str = "put a number in place of each ...",
) -> Verdict:  # fmt: skip
    """Two numbers, right where both are, and then why; else the words beside the wrong pair they are, or `fallback`."""
    if any(map(unsolved, answers)):
        return not_yet(hint)
    if not all(isinstance(answer, Real) for answer in answers):
        return Verdict(False, "two numbers are wanted, such as 3 and 5")
    return _matched(answers, right, why, near, fallback, within)


def function(
    given: Callable[..., Any], cases: Sequence[Sequence[Any]], right: Callable[..., float], why: str,
    near: Mapping[str, Callable[..., float]], fallback: str, within: float = 1e-3,
    several: str = "the function is to return one number, not several",
) -> Verdict:  # fmt: skip
    """A function that is right in every case, and then why; else the words beside the wrong function that it is.

    several   what is said where it returns a list
    """
    values = [attempt(given, *deepcopy(case)) for case in cases]  # a function may change what it is given
    for value in values:
        if isinstance(value, Verdict):
            return value
    if any(hasattr(value, "__len__") and not isinstance(value, str) for value in values):
        return Verdict(False, several)
    wrong = {words: [one(*case) for case in cases] for words, one in near.items()}
    return _matched(values, [right(*case) for case in cases], why, wrong, fallback, within)


def _matched(
    values: Sequence[Any], right: Sequence[float], why: str, near: Mapping[str, Sequence[float]], fallback: str,
    within: float,
) -> Verdict:  # fmt: skip
    def are(others: Sequence[float]) -> bool:
        pairs = zip(values, others, strict=True)
        return all(isinstance(v, Real) and math.isclose(_as_float(v), other, rel_tol=within) for v, other in pairs)

    if are(right):
        return Verdict(True, why)
    return Verdict(False, next((words for words, wrong in near.items() if are(wrong)), fallback))


def attempt(given: Callable[..., Any], *arguments: Any) -> Any:
    """What a student's function returns, or a verdict: unsolved when it returns None, wrong when it raises."""
    try:
        value = given(*arguments)
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


def unsolved(answer: object) -> bool:
    """Whether the exercise still holds what it came with: None or `...`."""
    return answer is None or answer is ...


def not_yet(hint: str) -> Verdict:
    """The verdict on an unsolved exercise: where to begin."""
    return Verdict(None, hint)

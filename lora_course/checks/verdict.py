"""What a check answers, and what all checks share: numbers compared, functions tried, "not yet" said, tries counted.

    @exercise("a first hint", "a second", "a third, nearly the answer")
    def check_pairs(answer: int | None, n: int = 8) -> Verdict:
        return number(answer, n * (n - 1) / 2, {n * n: "that pairs each with itself"}, "n (n - 1) / 2")

What varies by student comes as an argument, drawn in the lesson by `lesson.draw`. What the site asks, too, is data:
a `Number`, a `Choice` or a `Function`, which the check judges with and `site/answers.py` writes into the page.
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
    """A check whose tries are counted for the receipt; each wrong answer is given the next hint, at last the last.

    Without hints here, each verdict brings its own: that of the part of an answer that is wrong.
    """
    said = [f"Hint {place} of {len(hints)}: {hint}" for place, hint in enumerate(hints, 1)]

    def counted(check: Callable[Given, Verdict]) -> Callable[Given, Verdict]:
        @wraps(check)
        def asked(*arguments: Given.args, **by_name: Given.kwargs) -> Verdict:
            verdict = check(*arguments, **by_name)
            mine = CURRENT.checks.setdefault(check.__name__.removeprefix("check_"), Check())
            if not mine.passed:
                mine.passed, mine.tries = bool(verdict.passed), mine.tries + (verdict.passed is not None)
            if verdict.passed is not False or not hints:
                return verdict
            return replace(verdict, hint=said[min(max(mine.tries, 1), len(said)) - 1])

        vars(asked)["hints"] = said
        return asked

    return counted


SIGN = "not that: it is a finite number {side} zero"
NEARLY = "nearly: give one more digit, or write the formula instead of its value"
LARGE, SMALL = "not that: it is {factor} times too large", "not that: it is {factor} times too small"


@dataclass(frozen=True)
class Number:
    """What a number is compared with.

    right           it is right within a relative error `within` or its own rounding, and then hears why
    misconceptions  the words beside the wrong number that it is nearly, unless the right one is nearer, or beside the
                    first function that is true of it; else `fallback`, or how far off it is
    hint            while there is none
    """

    right: float
    misconceptions: Mapping[Any, str]
    why: str = ""
    within: float = 1e-6
    fallback: str = ""
    hint: str = "put a number in place of ..."

    def judge(self, answer: Any) -> Verdict:
        if unsolved(answer):
            return not_yet(self.hint)
        if not isinstance(answer, Real):
            return Verdict(False, f"a number is wanted, not {type(answer).__name__}")
        given, right = _as_float(answer), self.right
        if math.isclose(given, right, rel_tol=self.within) or math.isclose(given, right, abs_tol=_rounding(given)):
            return Verdict(True, self.why)
        wrong = [one for one in self.misconceptions if not callable(one) and math.isclose(given, one, rel_tol=0.02)]
        nearest = min(wrong, key=lambda one: abs(given - one), default=math.inf)
        if abs(given - nearest) <= abs(given - right):
            return Verdict(False, self.misconceptions[nearest])
        said = (words for one, words in self.misconceptions.items() if callable(one) and one(given))
        return Verdict(False, next(said, self.fallback or _how_far(given, right)))


def number(answer: Any, *compared: Any, **by_name: Any) -> Verdict:
    """The verdict on a number, compared with what a `Number` takes."""
    return Number(*compared, **by_name).judge(answer)


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
        return SIGN.format(side="above" if right > 0 else "below")
    if 0.97 < factor < 1.03:
        return NEARLY
    words, factor = (LARGE, factor) if factor > 1 else (SMALL, 1 / factor)
    return words.format(factor=f"{float(f'{factor:.3g}'):,.15g}")


@dataclass(frozen=True)
class Choice:
    """Words to choose from: those that are right, and replies to the others."""

    right: Sequence[str]
    replies: Mapping[str, str]
    why: str = ""

    def judge(self, answer: Any) -> Verdict:
        if unsolved(answer):
            return not_yet("put a word in place of ...")
        return Verdict(True, self.why) if answer in self.right else Verdict(False, self.replies[answer])


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


@dataclass(frozen=True)
class Function:
    """What a function is compared with: it is right in every case, and then hears why.

    near     the words beside the wrong function that it is, else `fallback`
    several  what is said where it returns a list
    """

    cases: Sequence[Sequence[Any]]
    right: Callable[..., float]
    why: str
    near: Mapping[str, Callable[..., float]]
    fallback: str
    within: float = 1e-3
    several: str = "the function is to return one number, not several"

    def judge(self, given: Callable[..., Any]) -> Verdict:
        values = [attempt(given, *deepcopy(case)) for case in self.cases]  # a function may change what it is given
        for value in values:
            if isinstance(value, Verdict):
                return value
        if any(hasattr(value, "__len__") and not isinstance(value, str) for value in values):
            return Verdict(False, self.several)
        wrong = {words: [one(*case) for case in self.cases] for words, one in self.near.items()}
        right = [self.right(*case) for case in self.cases]
        return _matched(values, right, self.why, wrong, self.fallback, self.within)

    def at(self, *case: Any, within: float) -> Number:
        """Its value in one case, for a page on which no function runs."""
        right = self.right(*case)
        wrong = {one(*case): words for words, one in self.near.items()}
        return Number(right, {n: words for n, words in wrong.items() if n != right}, self.why, within, self.fallback)


def function(given: Callable[..., Any], *compared: Any, **by_name: Any) -> Verdict:
    """The verdict on a function, compared with what a `Function` takes."""
    return Function(*compared, **by_name).judge(given)


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

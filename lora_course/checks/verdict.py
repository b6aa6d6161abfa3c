"""What all checks share: verdicts, the comparison with the right answer, and the number of tries.

    @exercise                # with hints in data/checks/hints.yaml
    def check_pairs(answer: int | None, n: int = 8) -> Verdict:
        return Number(n * (n - 1) / 2, {n * n: "that pairs each with itself"}, "n (n - 1) / 2").judge(answer)

Values that vary by student are arguments, drawn in the lesson with `lesson.draw`. The right answer to an exercise that
is also on the site is a `Number`, a `Choice` or a `Function`, which `site/answers.py` takes from the verdict.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, partial, wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import yaml

from lora_course.receipts import CURRENT, Check
from lora_lab.errors import LabError
from lora_lab.training.assets import shipped

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Verdict:
    """The result of a check; while the exercise is unsolved, `passed` is None and `words` say where to start.

    right   The right answer, or {name of a part: its right answer}.
    """

    passed: bool | None
    words: str
    hint: str = ""
    right: Any = None

    def __repr__(self) -> str:
        text = f"{ {True: 'right', False: 'not right', None: 'not yet'}[self.passed] }: {self.words}"
        return f"{text}\n{self.hint}" if self.hint else text

    def yours_or_ours(self, name: str, yours: Any, ours: Any) -> Any:
        """Return the student's version if it passed; otherwise print a note, and return the lab's version."""
        if self.passed:
            return yours
        print(f"Your {name} doesn't pass its check yet. Until it does, this cell uses ours.")
        return ours


def exercise(check: Callable[Given, Verdict]) -> Callable[Given, Verdict]:
    """Decorate a check: count tries for the receipt, and give wrong answers the next hint from data/checks/hints.yaml.

    If that file has no list for a check, each verdict has its own hint, for the part of the answer that is wrong.
    """
    name = check.__name__.removeprefix("check_")
    hints = texts("hints").get(name, [])
    hints = hints if isinstance(hints, list) else []
    numbered = [f"Hint {n} of {len(hints)}: {hint}" for n, hint in enumerate(hints, 1)]

    @wraps(check)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Verdict:
        verdict: Verdict = attempt(lambda: check(*args, **kwargs))  # an error becomes a reply, too
        record = CURRENT.checks.setdefault(name, Check())
        if not record.passed:
            record.passed, record.tries = bool(verdict.passed), record.tries + (verdict.passed is not None)
        if verdict.passed is not False or not numbered:
            return verdict
        return replace(verdict, hint=numbered[min(max(record.tries, 1), len(numbered)) - 1])

    vars(wrapper)["hints"] = numbered
    return wrapper


@cache
def texts(name: str) -> Any:
    """Load data/checks/NAME.yaml."""
    return yaml.safe_load(shipped(f"data/checks/{name}.yaml").read_text(encoding="utf-8"))


SIGN = "the answer is {side} zero"
NEARLY = "close: check each number, or give one more digit if you rounded"
LARGE, SMALL = "that is {factor} times too large", "that is {factor} times too small"


class Right(ABC):
    """A right answer."""

    def judge(self, answer: Any) -> Verdict:
        """Compare the student's answer with the right one."""
        return replace(self.compare(plain(answer)), right=self)

    @abstractmethod
    def compare(self, answer: Any) -> Verdict: ...


@dataclass(frozen=True)
class Number(Right):
    """The right number, and replies to wrong ones.

    right           The reply is `why` if the relative error is at most `within`, or if `right` rounds to the answer.
    misconceptions  {wrong number: reply} for answers within `slack` (relative) of a wrong number, unless `right`
                    is closer; for other answers, the reply is `fallback`, or how far off the answer is.
    hint            The reply until there is an answer.
    """

    right: float
    misconceptions: Mapping[Any, str]
    why: str = ""
    within: float = 1e-7  # what fp32 can hold
    fallback: str = ""
    hint: str = "replace the ... with a number"
    slack: float = 0.02

    def compare(self, answer: Any) -> Verdict:
        if unsolved(answer):
            return Verdict(None, self.hint)
        if not isinstance(answer, Real):
            return Verdict(False, f"give a number, not {type(answer).__name__}")
        given, right = float(answer), self.right
        if math.isclose(given, right, rel_tol=self.within) or math.isclose(given, right, abs_tol=_rounding(given)):
            return Verdict(True, self.why)
        near = [key for key in self.misconceptions if math.isclose(given, key, rel_tol=self.slack)]
        nearest = min(near, key=lambda wrong: abs(given - wrong), default=math.nan)
        if abs(given - nearest) < abs(given - right):
            return Verdict(False, self.misconceptions[nearest])
        nearly = right and 0.97 < given / right < 1.03
        return Verdict(False, NEARLY if nearly else self.fallback or _how_far(given, right))


def _rounding(given: float) -> float:
    """Return half a unit in the last place of an answer with one or two decimals and at least three digits, else 0."""
    return next((0.5 * 10**-n for n in (1, 2) if given == round(given, n) and given * 10**n >= 100), 0.0)


def _how_far(given: float, right: float) -> str:
    if not math.isfinite(given):
        return "give a finite number"
    factor = given / right if right else math.nan
    if not factor > 0:
        return SIGN.format(side="above" if right > 0 else "below" if right else "nearer to")
    words, factor = (LARGE, factor) if factor > 1 else (SMALL, 1 / factor)
    return words.format(factor=f"{float(f'{factor:.3g}'):,.15g}")


@dataclass(frozen=True)
class Choice(Right):
    """The words that are right, and replies to the wrong ones. Case and punctuation of an answer don't matter."""

    right: Sequence[str]
    replies: Mapping[str, str]
    why: str = ""
    hint: str = "replace the ... with a word"

    def compare(self, answer: Any) -> Verdict:
        if unsolved(answer):
            return Verdict(None, self.hint)
        options = {letters(option): option for option in (*self.replies, *self.right)}
        given = options.get(letters(str(answer)))
        if given in self.right:
            return Verdict(True, self.why)
        other = f"answer with one of {', '.join(sorted(options.values()))}, not {answer!r}"
        return Verdict(False, other if given is None else self.replies[given])


def letters(text: str) -> str:
    """Return one spelling of an answer: the same for "Worse, but" and "worse but", or for 2e-4 and 0.0002."""
    word = text.rstrip(" .,:;()'\"").lstrip(" ,:;()'\"").lower().replace(",", "")
    with suppress(ValueError):
        return f"{float(word):.7g}"
    return word


@dataclass(frozen=True)
class Function(Right):
    """The right function, the cases in which a student's function must agree with it, and replies to wrong ones.

    near     {reply: wrong function}; for other wrong functions, the reply is `fallback`.
    several  The reply if a function returns a list.
    """

    cases: Sequence[Sequence[Any]]
    right: Callable[..., float]
    why: str
    near: Mapping[str, Callable[..., float]]
    fallback: str
    within: float = 1e-3
    several: str = "return one number, not several"

    def compare(self, given: Callable[..., Any]) -> Verdict:
        values = [attempt(given, *deepcopy(case)) for case in self.cases]  # a function may change its arguments
        written = any(not isinstance(value, Verdict) for value in values)
        for case, value in zip(self.cases, values, strict=True):
            if isinstance(value, Verdict):
                nothing = f"your function returns nothing for {', '.join(map(str, case))}: return a value in every case"
                return Verdict(False, nothing) if written and value.passed is None else value
            if not isinstance(value, Real):
                many = hasattr(value, "__len__") and not isinstance(value, str)
                return Verdict(False, self.several if many else f"return a number, not {type(value).__name__}")

        def same(function: Callable[..., float]) -> bool:
            pairs = zip(values, (function(*case) for case in self.cases), strict=True)
            close = partial(math.isclose, rel_tol=self.within)
            return all(close(v, f, abs_tol=0 if f else 1e-6) for v, f in pairs)

        return matched(same, self.right, self.near, self.why, self.fallback)

    def at(self, *case: Any, within: float, slack: float = 0.02) -> Number:
        """Return the function's value in one case as a `Number`, for a page that cannot run functions."""
        right = self.right(*case)
        wrong = {function(*case): reply for reply, function in self.near.items()}
        return Number(right, wrong, self.why, within, self.fallback, slack=slack)


def matched(same: Callable[[Any], bool], right: Answer, near: Mapping[str, Answer], why: str, fallback: str) -> Verdict:
    """Judge an answer: `same(x)` says whether it equals x. `near` is {reply: the wrong answer that it explains}."""
    if same(right):
        return Verdict(True, why)
    return Verdict(False, next((reply for reply, wrong in near.items() if same(wrong)), fallback))


def attempt(given: Callable[..., Any], *arguments: Any) -> Any:
    """Call a student's function; return its value, or a verdict if it returns None (unsolved) or raises (wrong)."""
    if unsolved(given):
        return Verdict(None, "write the function or class first")
    if not callable(given):
        return Verdict(False, "pass the function or class itself, without calling it")
    try:
        value = given(*arguments)
    except Exception as error:
        raised = f"your code raises {type(error).__name__}: {error}{_hint(error)}"
        return Verdict(False, str(error) if isinstance(error, LabError) else raised)
    if unsolved(value):
        return Verdict(None, "the function returns nothing yet")
    return plain(value)


def plain(value: Any) -> Any:
    """Convert a Decimal, or an array or tensor with one element, to a number; return other values unchanged."""
    if isinstance(value, Decimal):
        return float(value)
    return value.item() if hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1 else value


def _hint(error: Exception) -> str:
    """Return a hint about the usual cause of an error, or ""."""
    if isinstance(error, TypeError) and ("xor" in str(error) or "^" in str(error)):
        return " (a power is written **, not ^)"
    if isinstance(error, IndexError):
        return " (s[r] is one number, the one after the r-th; s[:r] contains the first r)"
    return ""


def parts(
    right: Mapping[str, Right], answers: Sequence[Any], hint: str = "replace each ... with a number", why: str = "",
    hints: Mapping[str, str] = {},
) -> Verdict:  # fmt: skip
    """Judge an answer's parts in the order of `right`: return the verdict on the first wrong part, or else on the last.

    hint    The reply while a part is unsolved.
    why     The reply if all parts are right, instead of the last part's reply.
    hints   {part: hint}, shown if that part is the first wrong one.
    """
    if any(map(unsolved, answers)):
        return Verdict(None, hint, right=right)
    for (name, part), answer in zip(right.items(), answers, strict=True):
        if not (verdict := part.judge(answer)).passed:
            return Verdict(verdict.passed, f"{name}: {verdict.words}", hints.get(name, ""), right)
    return Verdict(True, why or verdict.words, right=right)


def unsolved(answer: object) -> bool:
    """Return whether an answer is still the placeholder, None or `...`."""
    return answer is None or answer is ...

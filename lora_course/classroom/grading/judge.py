"""The judge: the lab's own checks, in the grader's process, on answers that came over the wire.

Nothing that a notebook does to its own process reaches them. A function of the student's is called by asking for it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lora_course import checks
from lora_course.checks.verdict import Verdict
from lora_course.classroom.grading.lessons import Exercise, Lesson
from lora_course.classroom.grading.wire import decode, encode, write_back
from lora_lab.errors import BadValue

WORDS = {True: "right", False: "not right", None: "not yet"}
Ask = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Judge:
    """Judges the answers to one lesson; `ask` sends a question to the student's process and waits for its answer."""

    lesson: Lesson
    ask: Ask
    verdicts: dict[Exercise, Verdict] = field(default_factory=dict)
    calls: dict[Exercise, int] = field(default_factory=dict)
    _depth: int = 0

    def hear(self, message: dict[str, Any]) -> list[Any]:
        """Judge a call of a check, keep what it answers one of the lesson's exercises, and return it for display."""
        verdict, exercise = self._judged(message)
        if exercise:
            self.verdicts[exercise] = verdict  # the last one counts: it is what the notebook says in the end
            self.calls[exercise] = self.calls.get(exercise, 0) + 1
        return [verdict.passed, verdict.words]

    def _judged(self, message: dict[str, Any]) -> tuple[Verdict, Exercise | None]:
        name = str(message["check"])
        if self._depth:
            return Verdict(False, "a check was called within a check"), None
        self._depth += 1
        try:
            arguments = decode(message.get("arguments"), self._function)
            by_name = decode(message.get("by_name"), self._function)
            if not isinstance(arguments, tuple) or not isinstance(by_name, dict):
                return Verdict(False, "the answer cannot be sent to the judge: give plain numbers and texts"), None
            asked = (e for e in self.lesson.exercises if e.is_asked_by(name, arguments, by_name))
            return _checked(name, arguments, by_name), next(asked, None)
        except BadValue as error:
            return Verdict(False, str(error)), None
        finally:
            self._depth -= 1

    def _function(self, place: int) -> Callable[..., Any]:
        """What stands for a function in the student's process."""

        def function(*arguments: Any) -> Any:
            reply = self.ask({"call": place, "arguments": encode(arguments, [])})
            if "raised" in reply:
                raise _error(str(reply["raised"]), str(reply["words"]))
            write_back(arguments, decode(reply["after"], self._function))
            return decode(reply["value"], self._function)

        return function


def _checked(name: str, arguments: tuple[Any, ...], by_name: dict[str, Any]) -> Verdict:
    check = getattr(checks, name, None) if name.startswith("check_") else None
    if check is None:
        return Verdict(False, f"the lab has no {name[:60]}")
    try:
        return getattr(check, "__wrapped__", check)(*arguments, **by_name)  # no hints: those count one student's tries
    except Exception as error:  # an answer of a kind that nobody thought of
        return Verdict(False, f"the check stops with {type(error).__name__}: {str(error)[:200]}")


def _error(name: str, words: str) -> Exception:
    """An error of the student's process as one of the same kind, or of the same name."""
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or kind is StopIteration:
        kind = type(name[:60], (Exception,), {})
    try:
        return kind(words)
    except TypeError:  # UnicodeDecodeError and its like want more than words
        return type(name[:60], (Exception,), {})(words)

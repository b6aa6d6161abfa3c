"""Errors and warnings with one-sentence messages that say how to fix the problem. Failed commands exit with 1 or 2."""

import os
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 1000  # maximum number of characters in a message


class LabError(Exception):
    """An error that the user can fix. A notebook shows only the error's message, without a traceback."""

    def __str__(self) -> str:
        return shortened(super().__str__())  # the message may quote text from any file

    def _render_traceback_(self) -> list[str]:  # called by IPython
        return [f"{type(self).__name__}: {self}"]


class BadValue(LabError, ValueError):
    """An invalid value, such as a rank of 0, an unknown option, or a file in the wrong format."""


class Changed(BadValue):
    """The error for a user's file that has changed since runs were trained on it."""


class NotFound(LabError, LookupError):
    """The error for a module, asset or file that does not exist."""


class Failed(LabError):
    """A failure that the input did not cause, such as a missing network connection or a diverging run."""


class OutOfMemory(Failed):
    """A device's memory ran out during training."""


class LabWarning(UserWarning):
    """A problem that will cause trouble later and can be fixed now."""


def warn(sentence: str) -> None:
    """Issue a LabWarning that points to the user's own line of code. If the sentence is empty, issue no warning."""
    if not sentence:
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(("lora_lab.", "torch.utils.")):  # a decorator
        frame, level = frame.f_back, level + 1
    warnings.warn(shortened(sentence), LabWarning, stacklevel=level)


def switched_on(variable: str) -> bool:
    """Return whether an environment variable is set to anything other than 0 or false."""
    return os.environ.get(variable, "").lower() not in ("", "0", "false")


def in_a_sentence(error: Exception) -> str:
    """Describe an error in one sentence, so that it can be recorded while other work continues.

    With LORA_LAB_DEBUG=1, an error that is not a LabError is re-raised.
    """
    if isinstance(error, LabError):
        return str(error)
    if switched_on("LORA_LAB_DEBUG"):
        raise error
    return f"{type(error).__name__}: {error}"


def nearest(word: str, options: Iterable[str], n: int = 3) -> str:
    """List the options closest to `word`, such as "query, key". If no option is close, list all or the first few."""
    names = sorted(set(options))
    shown = [*names[:8], f"and {len(names) - 8} more"] if len(names) > 20 else names
    return ", ".join(get_close_matches(word[:100], names, n, cutoff=0.5) or shown)


def printable(text: str, keep: str = "") -> str:
    """Make untrusted text safe to print: replace each control character, except those in `keep`, with a space."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)


def shortened(text: str) -> str:
    """Make a message printable, since it may quote untrusted text, and cut it after LONGEST characters."""
    return printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}... (shortened)")

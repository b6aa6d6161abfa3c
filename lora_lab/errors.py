"""Errors and warnings: one sentence that names the fix. The command line prints an error and exits with 2."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches


class LabError(Exception):
    """Something the user can fix. A notebook shows only its sentence, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # the name IPython looks for
        return [f"{type(self).__name__}: {self}"]


class BadValue(LabError, ValueError):
    """An impossible value: a rank of 0, an unknown option, a file that isn't what it claims to be."""


class Changed(BadValue):
    """A user's file that has changed since runs were trained on it."""


class NotFound(LabError, LookupError):
    """Something that doesn't exist: a module, an asset, a file."""


class Failed(LabError):
    """A failure that isn't the input's fault: no network, a diverging run."""


class LabWarning(UserWarning):
    """Something that will go wrong later and can be fixed now."""


def warn(sentence: str) -> None:
    """Issue a LabWarning that points at the caller's own line: the first frame outside this package.

    An empty sentence warns of nothing.
    """
    if not sentence:
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("lora_lab."):
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, LabWarning, stacklevel=level)


def in_a_sentence(error: Exception) -> str:
    """Describe an error, to record it while other work goes on.

    With LORA_LAB_DEBUG set, an error that isn't a LabError is raised again, with its traceback.
    """
    if isinstance(error, LabError):
        return str(error)
    if os.environ.get("LORA_LAB_DEBUG"):
        raise error
    return f"{type(error).__name__}: {error}"


def nearest(word: str, options: Iterable[str], n: int = 3) -> str:
    """Return the options closest to `word`, as "query, key". If none is close, return all, or the first of many."""
    names = sorted(set(options))
    many = [*names[:8], f"and {len(names) - 8} more"] if len(names) > 20 else names
    return ", ".join(get_close_matches(word, names, n, cutoff=0.5) or many)


def printable(text: str) -> str:
    """Make untrusted text safe to print: one line, with a space for each control character."""
    return "".join(letter if letter.isprintable() else " " for letter in text)

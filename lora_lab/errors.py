"""What goes wrong, said in one sentence that names the fix. The command line prints it and exits with 2."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches


class LabError(Exception):
    """Something the user can mend. In a notebook it shows as its sentence alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # the name IPython looks for
        return [f"{type(self).__name__}: {self}"]


class BadValue(LabError, ValueError):
    """A value that cannot be: a rank of 0, an unknown option, a file that is not what it says."""


class Changed(BadValue):
    """A file of the user's that is not what it was when runs were made from it."""


class NotFound(LabError, LookupError):
    """Something that is not there: a module, an asset, a file."""


class Failed(LabError):
    """Something that went wrong on the way, through no fault of the input: no network, a diverging run."""


class LabWarning(UserWarning):
    """Something that will go wrong later and can be mended now."""


def in_a_sentence(error: Exception) -> str:
    """What went wrong, to be recorded while other work goes on.

    Raises: the error itself where it is none of the lab's and LORA_LAB_DEBUG is set, to show where it comes from.
    """
    if isinstance(error, LabError):
        return str(error)
    if os.environ.get("LORA_LAB_DEBUG"):
        raise error
    return f"{type(error).__name__}: {error}"


def nearest(word: str, options: Iterable[str], n: int = 3) -> str:
    """The options most like `word`, for "did you mean": "query, key" or, where nothing is alike, all of them."""
    names = sorted(set(options))
    return ", ".join(get_close_matches(word, names, n, cutoff=0.5) or names)


def printable(text: str) -> str:
    """A stranger's text on one line, as it may be shown: a blank for each letter that a terminal would act upon."""
    return "".join(letter if letter.isprintable() else " " for letter in text)

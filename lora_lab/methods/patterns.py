"""Regular expressions from strangers: PEFT's target_modules and patterns may be any, and some take for ever to fail.

`(a|a)*b` on thirty letters a tries a thousand million ways. Python's `re` cannot be stopped; the `regex` package, whose
language is a superset, counts the time. It unrolls counted repeats before it does, so those are counted here.
"""

from __future__ import annotations

import math
from time import process_time
from typing import Any

import regex

from lora_lab.errors import BadValue

LONGEST = 2000
UNROLLED = 50_000  # characters, once every counted repeat is written out
SECONDS = 2.0
_ODD = regex.compile(r"\(\?(?![:=!]|i\))|\(\*|\{(?!\d{0,3}(,\d{0,3})?\})")  # recursion, fuzzy matching, look-behind


class Matcher:
    """Matches any number of names against any number of patterns, all of them within `seconds` of computing.

    Raises: BadValue for a pattern that is none, that says what no list of modules needs, or that takes too long.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.left = seconds

    def whole(self, pattern: str, name: str) -> bool:
        """Whether the pattern fits all of the name, as `re.fullmatch`."""
        return self._match(pattern, name) is not None

    def last_group(self, pattern: str, name: str) -> str | None:
        """What the pattern's last group takes of the name, where the pattern fits all of it."""
        found = self._match(pattern, name)
        return found[found.re.groups] if found else None

    def _match(self, pattern: str, name: str) -> Any:
        if not isinstance(pattern, str) or len(pattern) > LONGEST or _ODD.search(pattern) or not _small(pattern):
            raise BadValue(f"{str(pattern)[:60]!r} is no pattern for the names of modules: name them one by one")
        begun = process_time()
        try:
            if self.left <= 0:
                raise TimeoutError
            return regex.fullmatch(pattern, name, timeout=self.left)
        except TimeoutError as error:
            raise BadValue(f"the pattern {pattern[:60]!r} takes too long: name the modules one by one") from error
        except (regex.error, RecursionError, OverflowError) as error:
            raise BadValue(f"{pattern[:60]!r} is no pattern: {error}") from error
        finally:
            self.left -= process_time() - begun


def _small(pattern: str) -> bool:
    """Whether it stays small with its counted repeats written out, each in the one before it at worst."""
    counts = [max(1, *(int(n) for n in two if n)) for two in regex.findall(r"\{(\d*),?(\d*)\}", pattern) if any(two)]
    return math.prod(counts) * len(pattern) <= UNROLLED

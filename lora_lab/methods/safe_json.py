"""JSON from strangers: one object, of bounded size and depth, no name twice, no number that is none.

Python's own reader takes the last of two equal names, NaN, and integers of a thousand digits, and all of them break
something later and elsewhere.
"""

from __future__ import annotations

import json
import math
from typing import Any

from lora_lab.errors import BadValue

DEPTH = 16
"""Objects in objects; PEFT's configs have 3."""

DIGITS = 18
"""Of an integer: what 64 bits hold, whatever it counts."""


WIDTH = 4096
"""Names in one object or list; a PEFT config that names every module of a 70-billion model has 560."""


def parse_object(content: bytes | str, what: str, width: int = WIDTH) -> dict[str, Any]:
    """One JSON object.

    what   names the source in the sentence of an error
    Raises: BadValue for anything else, for a name that stands twice in one object, more than DEPTH levels or `width`
    names in one of them, an integer of more than DIGITS digits, a number that is not finite, and text that is no
    Unicode.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        hooks: dict[str, Any] = {"parse_int": _whole, "parse_float": _finite, "parse_constant": _finite}
        value = json.loads(text, object_pairs_hook=_no_name_twice, **hooks)
        _check_size(value, width)
        json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be written anywhere
    except (ValueError, RecursionError) as error:
        raise BadValue(f"{what} is not readable as JSON: {_reason(error)}") from error
    if not isinstance(value, dict):
        raise BadValue(f"{what} holds {type(value).__name__}, not a JSON object")
    return value


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:80]!r} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is not a finite number")
    return value


def _check_size(value: Any, width: int) -> None:
    """Raises ValueError for what is too deep or too wide. Without recursion: depth is what is in doubt."""
    waiting = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, dict | list):
            if depth > DEPTH:
                raise ValueError(f"it is nested deeper than {DEPTH} levels")
            if len(one) > width:
                raise ValueError(f"it has {len(one):,} entries in one place, where {width:,} are plenty")
            waiting += [(inner, depth + 1) for inner in (one.values() if isinstance(one, dict) else one)]


def _reason(error: Exception) -> str:
    return f"it is nested deeper than {DEPTH} levels" if isinstance(error, RecursionError) else str(error)

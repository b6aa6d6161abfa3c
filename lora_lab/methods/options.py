"""What methods check their options with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lora_lab.errors import BadValue

MOST = 10**9
"""Of a size: a tensor with two sides of this can still be described, and no model is as large."""


def plain(value: Any) -> Any:
    """Numbers of NumPy as Python's own, so that they are checked, written and hashed like these; all else as it is."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(own) for name, own in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def make_plain(options: Any) -> None:
    """Bring the fields of a dataclass, which may be frozen, to Python's own numbers."""
    for field in fields(options):
        object.__setattr__(options, field.name, plain(getattr(options, field.name)))


def whole(what: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least` and at most MOST. Raises BadValue that says what it is for."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadValue(f"{what} must be a whole number of at least {least}, not {value!r}")
    if value > MOST:
        raise BadValue(f"{what} must be at most {MOST:,}, not {value!r}")
    return value


def one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    """Raises BadValue unless `value` is one of the known words."""
    if value not in known:
        raise BadValue(f"{what} must be one of {', '.join(known)}, not {value!r}")


def is_number(value: object) -> bool:
    """Whether it is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def words(value: Any, such_as: str = "q,v") -> tuple[str, ...]:
    """Targets as a tuple, from "k,v" as from ("k", "v"). Raises: BadValue for what is no words."""
    try:
        given = value.split(",") if isinstance(value, str) else value
        return tuple(word.strip() for word in given if word.strip())
    except (TypeError, AttributeError):
        raise BadValue(f"targets are roles, names or patterns, such as '{such_as}', not {value!r}") from None

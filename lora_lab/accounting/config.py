"""Reading a config.json with care: whole numbers that can be, flags that are flags, and a sentence for what is wrong.

A config leaves out what it does not need to say, so a field may have a default. A field without one must be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from lora_lab.errors import BadValue

T = TypeVar("T")
_MISSING = object()
MOST, MOST_LAYERS = 10**9, 10**4  # of anything, and of layers, each of which is written down


class Config:
    """The fields of one config, each read once with its type; `name` is what errors call the model."""

    def __init__(self, fields: Mapping[str, Any], name: str) -> None:
        self.fields, self.name = fields, name

    def number(self, field: str, default: Any = _MISSING, *, least: int = 1) -> int:
        """A whole number of at least `least`; absent or null means `default`, which may be a number already read.

        Raises: BadValue when the field is needed and absent, or holds no such number.
        """
        value = self.fields.get(field)
        value = default if value is None else value
        if value is _MISSING:
            raise BadValue(f"the config of {self.name} lacks '{field}', which it needs: add it to config.json")
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadValue(f"'{field}' of {self.name} must be a whole number of at least {least}, not {value!r}")
        if value > (most := MOST_LAYERS if "layer" in field else MOST):
            raise BadValue(f"'{field}' of {self.name} must be at most {most:,}: no model has as many")
        return value

    def flag(self, field: str, default: bool) -> bool:
        """true or false. Raises BadValue for anything else."""
        return self._of(field, default, bool, "true or false")

    def text(self, field: str, default: str) -> str:
        """A string. Raises BadValue for anything else."""
        return self._of(field, default, str, "a string")

    def layer_numbers(self, field: str) -> tuple[int, ...]:
        """A list of layers' numbers; () when absent. Raises BadValue for anything else."""
        value = self.fields.get(field)
        value = [] if value is None else value
        if not (isinstance(value, list) and all(isinstance(n, int) for n in value)):
            raise BadValue(f"'{field}' of {self.name} must be a list of layers' numbers, not {value!r}")
        return tuple(value)

    def words(self, field: str) -> tuple[str, ...]:
        """Several words, written as a list or with bars: ["c2p", "p2c"] or "c2p|p2c"; () when absent."""
        value = self.fields.get(field)
        if isinstance(value, str):
            return tuple(word.strip().lower() for word in value.split("|"))
        if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            raise BadValue(f"'{field}' of {self.name} must be a list of strings, not {value!r}")
        return tuple(value or ())

    def head_size(self, hidden: int, heads: int, default: int | None = None) -> int:
        """`head_dim` where the config (or its family) says so, else hidden / heads. Raises: as `per_head`."""
        said = self.fields.get("head_dim", default)  # null is not absent: it means hidden / heads
        return self.per_head(hidden, heads) if said is None else self.number("head_dim", default)

    def per_head(self, hidden: int, heads: int) -> int:
        """hidden / heads. Raises: BadValue when the heads do not divide the hidden size."""
        if hidden % heads:
            raise BadValue(f"the hidden size {hidden} of {self.name} is no multiple of its {heads} attention heads")
        return hidden // heads

    def key_value_heads(self, heads: int, default: int | None = None) -> int:
        """Heads of keys and values, which query heads share evenly.

        Raises: BadValue when they do not divide the query heads.
        """
        absent = "num_key_value_heads" not in self.fields  # null is not absent: it means as many as heads
        kv = self.number("num_key_value_heads", default if absent and default else heads)
        if heads % kv:
            raise BadValue(f"{heads} attention heads of {self.name} cannot share {kv} num_key_value_heads evenly")
        return kv

    def _of(self, field: str, default: T, kind: type[T], wanted: str) -> T:
        value = self.fields.get(field)
        value = default if value is None else value
        if not isinstance(value, kind):
            raise BadValue(f"'{field}' of {self.name} must be {wanted}, not {value!r}")
        return value

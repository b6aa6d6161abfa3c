"""What every method shares that is counted from an architecture: its count, its file, its settings, its checks."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

from lora_lab.accounting.architectures import Architecture
from lora_lab.accounting.parameters import FP32, Row
from lora_lab.accounting.plan import Plan
from lora_lab.errors import BadValue
from lora_lab.methods.base import Report

if TYPE_CHECKING:
    from torch import nn


class Counted:
    """A method says in `trained` what trains; the rest follows from it."""

    name: ClassVar[str]
    packs: ClassVar[bool] = False
    lanes_differ: ClassVar[tuple[str, ...]] = ()
    within: ClassVar[bool] = False

    def trained(self, architecture: Architecture) -> tuple[Row, ...]:
        """A row for everything that trains, the task's head not among it."""
        raise NotImplementedError

    def count(self, architecture: Architecture) -> int:
        """Parameters that train, the task's head not among them."""
        return sum(row.trained for row in self.trained(architecture))

    def file_bytes(self, architecture: Architecture) -> int:
        """Bytes of the trained numbers and the head in fp32; a file's header would come on top."""
        return FP32 * (self.count(architecture) + architecture.head_parameters)

    def plan(self, architecture: Architecture) -> Plan:
        """What trains, as far as memory depends on it. Raises: as `count`."""
        unknown = f"the memory of {self.name} is not modelled yet; trace follows it step by step"
        return Plan(self.count(architecture), unknown=unknown)

    def settings(self) -> dict[str, Any]:
        """{"name": ..., ...}: plain values that JSON can hold."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"name": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def attach(self, model: nn.Module) -> Report:
        """Freeze the model, put in what trains, give a classification head a copy that trains."""
        raise BadValue(f"{self.name} can be counted, not trained yet; lora, full, head, prompt and bitfit can")


def whole(what: str, value: object, least: int = 1) -> int:
    """A whole number of at least `least`. Raises BadValue that says what it is for."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadValue(f"{what} must be a whole number of at least {least}, not {value!r}")
    return value


def one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    """Raises BadValue unless `value` is one of the known words."""
    if value not in known:
        raise BadValue(f"{what} must be one of {', '.join(known)}, not {value!r}")


def words(value: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """Targets as a tuple, from "k,v" as from ("k", "v"); none of None. Raises: BadValue for what is no words."""
    given = value.split(",") if isinstance(value, str) else () if value is None else value
    if not isinstance(given, list | tuple) or not all(isinstance(word, str) for word in given):
        raise BadValue(f"targets are words with commas between, such as 'k,v', not {value!r}")
    return tuple(word.strip() for word in given if word.strip())


def layers_within(what: str, wanted: int, architecture: Architecture) -> None:
    """Raises BadValue when a method wants more layers than there are, or a stack of layers that is not one."""
    if architecture.task == "seq2seq":
        raise BadValue(f"{what} is for a model with one stack of layers; {architecture.name} has two")
    if wanted > architecture.layers:
        raise BadValue(f"{what} is {wanted}, but {architecture.name} has {architecture.layers} layers")

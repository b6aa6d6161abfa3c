"""What a method trains, as far as memory depends on it: the methods state it, the accountant reads it.

A method's `plan(architecture)` returns one of these, so that accounting knows no method by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from lora_lab.accounting.architectures import Architecture


@dataclass(frozen=True)
class Adapter:
    """A low-rank update beside one layer: B (rows, rank) and A (rank, in); `sliced` when it updates a slice of it."""

    rank: int
    in_features: int
    rows: int
    sliced: bool = False

    @property
    def numbers(self) -> int:
        """Numbers in A and B."""
        return self.rank * (self.in_features + self.rows)


LayerPlan = tuple[tuple[str, tuple[Adapter, ...]], ...]  # key of the module -> its adapters, the inner one first


@dataclass(frozen=True)
class Plan:
    """What trains.

    everything     all weights of the model
    biases         its biases
    layers         the adapters of each layer; equal layers hold the same object
    outside        numbers in adapters outside the layers, on embeddings or the head
    dropout        on the adapters' inputs
    prompt         tokens put before each row
    prefix         keys and values put before those of each row, in every layer
    parameters     numbers that train, the task's head not among them
    head           whether the task's head trains too
    unknown        why memory cannot be stated for this method; "" when it can
    """

    parameters: int
    everything: bool = False
    biases: bool = False
    layers: tuple[LayerPlan, ...] = ()
    outside: int = 0
    dropout: float = 0.0
    prompt: int = 0
    prefix: int = 0
    head: bool = True
    unknown: str = ""


class Plans(Protocol):
    """A method, as far as the accountant needs it."""

    def plan(self, architecture: Architecture) -> Plan:
        """What it trains on this model. Raises: as counting does."""
        ...

    def __hash__(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """The method as a plain mapping."""
        ...

"""What a method trains, as far as memory depends on it: the methods state it, the accountant reads it.

A method's `plan(architecture)` returns one of these, so that accounting knows no method by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from lora_lab.accounting.models import Architecture


@dataclass(frozen=True)
class Adapter:
    """A low-rank update beside one layer: B (rows, rank) and A (rank, in); `sliced` when it updates a slice of it.

    Where A is frozen only B trains.
    """

    rank: int
    in_features: int
    rows: int
    sliced: bool = False
    frozen: bool = False

    @property
    def tensors(self) -> tuple[int, ...]:
        """Numbers in each tensor that trains: A and B."""
        a, b = self.rank * self.in_features, self.rank * self.rows
        return (b,) if self.frozen else (a, b)

    @property
    def numbers(self) -> int:
        """Numbers in all of them, and in a frozen A."""
        return sum(self.tensors) + self.frozen * self.rank * self.in_features


@dataclass(frozen=True)
class Funnel(Adapter):
    """A bottleneck on a layer's output, of `rows` numbers: y + W_up f(W_down y), both with biases.

    norm   whether y is normed before it goes down
    """

    norm: bool = False

    @property
    def tensors(self) -> tuple[int, ...]:
        """The norm's two, the way down and its bias, the way up and its bias."""
        norm = (self.rows, self.rows) if self.norm else ()
        return *norm, self.rank * self.rows, self.rank, self.rank * self.rows, self.rows


@dataclass(frozen=True)
class Factor(Adapter):
    """A factor for each number of a layer's output or, where `on_input`, of its input; its rank is 0."""

    on_input: bool = False

    @property
    def tensors(self) -> tuple[int, ...]:
        """One vector."""
        return (self.in_features if self.on_input else self.rows,)


# Key of the module -> what is beside it, the inner one first.
LayerPlan = tuple[tuple[str, tuple[Adapter, ...]], ...]


@dataclass(frozen=True)
class Plan:
    """What trains, a task's head besides.

    everything     all weights of the model
    biases         its biases, in fp32 beside the frozen ones
    layers         the adapters of each layer; equal layers hold the same object
    kept           numbers beside the base that do not train: LoRA-FA's A, PiSSA's start
    outside        numbers in adapters outside the layers, on embeddings or the head
    dropout        on the adapters' inputs
    prompt         tokens put before each row
    prefix         keys and values put before those of each row, in every layer
    tensors        numbers in each tensor that trains outside the layers' plan; () for one tensor
    parameters     numbers that train, a task's head not among them
    unknown        why memory cannot be stated for this method; "" when it can
    """

    parameters: int
    everything: bool = False
    biases: bool = False
    layers: tuple[LayerPlan, ...] = ()
    kept: int = 0
    outside: int = 0
    dropout: float = 0.0
    prompt: int = 0
    prefix: int = 0
    tensors: tuple[int, ...] = ()
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

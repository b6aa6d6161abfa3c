"""The parts that every family is built from: embeddings, norms, and a stack of equal layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lora_lab.accounting.architectures import Module
from lora_lab.accounting.sites import roles_of


def embedding(name: str, rows: int, width: int) -> Module:
    """A table of `rows` vectors of `width` numbers; its role follows from its name."""
    return Module(name, "+".join(roles_of(name)) or "embed", "embedding", rows, width)


def norm(name: str, width: int, *, bias: bool = False) -> Module:
    """A LayerNorm (with bias) or an RMSNorm over `width` numbers."""
    return Module(name, "norm", "norm", 1, width, bias)


def stack(path: str, numbers: Iterable[int], parts: Iterable[Module]) -> tuple[Module, ...]:
    """The parts of one layer, named below `path`, in each of these layers; parts that say their own keep them."""
    every = tuple(numbers)
    placed = ((part, part.numbers or every) for part in parts)
    # `count` says how often a part stands in one layer (its experts) until it is placed into the layers.
    return tuple(replace(x, name=f"{path}.*.{x.name}", numbers=n, count=x.count * len(n)) for x, n in placed)

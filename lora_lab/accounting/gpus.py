"""Cards to train on, from a laptop's to a data centre's: memory, peak, watts, and what of the memory is left to use.

The makers' "24 GB" on a graphics card means 24 GiB, and so it does here. Peaks and watts are from the data sheets as
remembered: dense bf16 products added up in fp32, without the doubling for sparse matrices, at the sheet's board power.
None of them was looked up again or measured here, and each card says so in `standing`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lora_lab.errors import BadValue, NotFound, nearest

GIB = 2**30

CONTEXT = 8 * GIB // 10
"""Bytes that CUDA's context and the libraries' workspaces take on a card before the first tensor: about 0.8 GiB."""

FRAGMENTATION = 0.04
"""Share of a card lost to gaps between tensors, and to error correction where it has that; a rule of thumb."""

SYSTEM = 3 * GIB
"""Bytes that an operating system with a browser open keeps of a laptop's memory; a rule of thumb."""


PROCESS = GIB // 2
"""Bytes that Python takes with torch and transformers imported, before any model: about 0.5 GiB.

Measured on Linux, torch 2.13 and transformers 5.24: 0.36 GiB resident after importing what trains, 0.39 GiB with a
panel; the rest is for the kernels and threads of the first step.
"""


@dataclass(frozen=True)
class Card:
    """A place to train.

    name      as its maker writes it
    memory    bytes, nominal: an RTX 4090's 24 GB are 24 GiB, 24 * 2**30
    peak      FLOP/s, dense, bf16 with sums in fp32 (fp16 on the T4, which has no bf16; fp32 on a CPU)
    watts     the board's, or the processor's, at full load
    where     laptop, desktop or data centre
    device    whose kernels it runs: cuda or cpu
    standing  where peak and watts come from; "memory" is a data sheet remembered and not confirmed
    """

    name: str
    memory: int
    peak: float
    watts: float
    where: str
    device: str = "cuda"
    standing: str = "memory"


CARDS = (
    Card("8 GB laptop, CPU", 8 * GIB, 0.2e12, 15, "laptop", "cpu"),
    Card("16 GB laptop, CPU", 16 * GIB, 0.4e12, 28, "laptop", "cpu"),
    Card("RTX 4060 Laptop 8 GB", 8 * GIB, 23e12, 80, "laptop"),
    Card("RTX 4060 8 GB", 8 * GIB, 30e12, 115, "desktop"),
    Card("RTX 3060 12 GB", 12 * GIB, 25e12, 170, "desktop"),
    Card("T4 16 GB", 16 * GIB, 65e12, 70, "data centre"),
    Card("RTX 3090 24 GB", 24 * GIB, 71e12, 350, "desktop"),
    Card("RTX 4090 24 GB", 24 * GIB, 165e12, 450, "desktop"),
    Card("L4 24 GB", 24 * GIB, 121e12, 72, "data centre"),
    Card("A10G 24 GB", 24 * GIB, 70e12, 300, "data centre"),
    Card("RTX 5090 32 GB", 32 * GIB, 209e12, 575, "desktop"),
    Card("A100 40 GB", 40 * GIB, 312e12, 400, "data centre"),
    Card("L40S 48 GB", 48 * GIB, 362e12, 350, "data centre"),
    Card("RTX A6000 48 GB", 48 * GIB, 155e12, 300, "desktop"),
    Card("A100 80 GB", 80 * GIB, 312e12, 400, "data centre"),
    Card("H100 80 GB", 80 * GIB, 989e12, 700, "data centre"),
    Card("H200 141 GB", 141 * GIB, 989e12, 700, "data centre"),
    Card("B200 192 GB", 192 * GIB, 2250e12, 1000, "data centre"),
)


def cards() -> tuple[Card, ...]:
    """All cards, the smallest memory first."""
    return tuple(sorted(CARDS, key=lambda card: card.memory))


def usable(card: Card) -> int:
    """Bytes left for a training step: memory - context - 4 % for gaps; on a CPU memory - system - Python with torch."""
    if card.device == "cpu":
        return max(0, card.memory - SYSTEM - PROCESS)
    return max(0, card.memory - CONTEXT - int(FRAGMENTATION * card.memory))


def card(name: str) -> Card:
    """The one card whose name holds the words given, in any case and order: "4090", "a100 80".

    Raises: NotFound when none does, BadValue when several do; both name cards.
    """
    words = name.lower().replace("-", " ").split()
    found = [one for one in CARDS if all(word in one.name.lower() for word in words)]
    whole = [one for one in found if set(words) <= set(one.name.lower().replace(",", "").split())]
    found = whole or found
    if not found or not words:
        raise NotFound(f"no card '{name}'; nearest: {nearest(name, [one.name for one in cards()])}; or give --gpu-gb")
    if len(found) > 1:
        raise BadValue(f"'{name}' could be {' or '.join(one.name for one in found)}; write more of its name")
    return found[0]


def of_size(gigabytes: float) -> Card:
    """A card of so many GB of which nothing else is known. Raises: BadValue unless the number is above 0."""
    if not 0 < gigabytes < float("inf"):
        raise BadValue(f"a card's memory must be above 0 GB, not {gigabytes!r}")
    return Card(f"{gigabytes:g} GB card", int(gigabytes * GIB), 0.0, 0.0, "any")

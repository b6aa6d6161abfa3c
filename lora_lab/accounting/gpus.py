"""Cards to train on: memory, peak speed, and the memory left for a step.

The figures in `cards.json` are those of data sheets, quoted from memory; none was confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json

UTILISATION = 0.40  # share of a card's peak that good training code reaches: 30 to 55 % is reported
FRAGMENTATION = 0.03  # share of memory lost to gaps between tensors; a rule of thumb
# Bytes: CUDA's context and workspaces; the driver's share of a card without error correction; an operating system with
# a browser (a rule of thumb); Python with torch and transformers (0.36 GiB measured) and the kernels of a first step.
CONTEXT, DRIVER, SYSTEM, PROCESS = 8 * GIB // 10, 4 * GIB // 10, 3 * GIB, GIB // 2


@dataclass(frozen=True)
class Card:
    """A graphics card (`device` cuda), or a laptop's processor (cpu).

    memory   nominal bytes: the 24 GB of an RTX 4090 are 24 * 2**30
    seen     bytes that torch reports: `torch.cuda.get_device_properties(0).total_memory`
    peaks    10^12 operations per second by dtype, where known; no bf16 where PyTorch emulates it
    lacks    what the card lacks for a step, by dtype, in a sentence
    """

    name: str
    memory: int
    seen: int
    device: str = "cuda"
    peaks: Mapping[str, float] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    def peak(self, dtype: str) -> float | None:
        """Operations per second in fp16, bf16 or fp32; None if unknown."""
        return self.peaks[dtype] * 1e12 if dtype in self.peaks else None


def _card(name: str, memory: float, seen: float | None = None, device: str = "cuda", **rest: Any) -> Card:
    """A card from sizes in GiB. By default torch sees all memory but the driver's share."""
    seen = seen if seen is not None else max(0, memory - (DRIVER / GIB if device == "cuda" else 0))
    return Card(name, int(memory * GIB), int(seen * GIB), device, **rest)


@cache
def cards() -> tuple[Card, ...]:
    """All cards, smallest memory first."""
    return tuple(_card(**row) for row in read_json(Path(__file__).with_name("cards.json"))["cards"])


def of_size(gigabytes: float) -> Card:
    """A card known only by its nominal memory: 24 means 24 GiB. Raises: BadValue unless 0 < gigabytes <= 1,000,000."""
    if not 0 < gigabytes <= 10**6:
        raise BadValue(f"a card's memory must be above 0 GB and at most 1,000,000, not {gigabytes!r}")
    return _card(f"{gigabytes:g} GB card", gigabytes)


def usable(card: Card) -> int:
    """Bytes left for a training step: seen - context - 3 % for gaps; on a CPU seen - system - Python with torch."""
    lost = SYSTEM + PROCESS if card.device == "cpu" else CONTEXT + int(FRAGMENTATION * card.seen)
    return max(0, card.seen - lost)


def card(name: str) -> Card:
    """The card with these words in its name, in any case and order: "4090", "a100 80".

    Raises: NotFound if there is none, BadValue if there are several.
    """

    def words(text: str) -> set[str]:
        return set(text.lower().replace("-", " ").replace(",", " ").split())

    wanted = words(name)
    found = [one for one in cards() if wanted and wanted <= words(one.name)]
    found = [one for one in found if wanted == words(one.name)] or found  # another name may have all its words, too
    if not found:
        raise NotFound(f"no card '{name}'; nearest: {nearest(name, [one.name for one in cards()])}; or give --gpu-gb")
    if len(found) > 1:
        raise BadValue(f"'{name}' could be {' or '.join(one.name for one in found)}; write more of its name")
    return found[0]


def seconds(flops: float, card: Card, utilisation: float = UTILISATION, dtype: str = "bf16") -> float:
    """Seconds of training: FLOPs / (the card's peak x utilization), without loading, validation or waiting for data.

    Raises: BadValue for a share outside (0, 1], or if the card's peak in this dtype is unknown.
    """
    if not 0 < utilisation <= 1:
        raise BadValue(f"utilisation is a share above 0 and at most 1, not {utilisation!r}")
    peak = card.peak(dtype)
    if not peak:
        raise BadValue(f"the peak of a {card.name} in {dtype} is not known; name another card, or measure its FLOP/s")
    return flops / (peak * utilisation)

"""Cards to train on: their memory, their peak speed, and how much memory is left for a training step.

The numbers in `cards.json` are data-sheet values as we remember them. None of them has been verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from numbers import Real
from pathlib import Path
from typing import Any

from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.files import read_json

UTILISATION = 0.40  # fraction of peak FLOP/s that good training code reaches; 30 to 55% has been reported
FRAGMENTATION = 0.03  # fraction of memory lost to gaps between tensors; a rough estimate
# The bytes used by CUDA's context and workspaces, by the driver of a card without ECC, by an operating system with a
# browser (a rough estimate), and by Python with torch, transformers (0.36 GiB measured) and the first step's kernels.
CONTEXT, DRIVER, SYSTEM, PROCESS = 8 * GIB // 10, 4 * GIB // 10, 3 * GIB, GIB // 2


@dataclass(frozen=True)
class Card:
    """A GPU (`device` is "cuda") or a laptop's CPU (`device` is "cpu").

    memory   The nominal size in bytes, such as 24 * 2**30 for an RTX 4090 with 24 GB.
    seen     The bytes that torch reports as `torch.cuda.get_device_properties(0).total_memory`.
    peaks    The known peak speeds by dtype, in 10^12 FLOP/s. bf16 is left out if PyTorch emulates it.
    lacks    For some dtypes, a sentence about what the card does not support.
    """

    name: str
    memory: int
    seen: int
    device: str = "cuda"
    peaks: Mapping[str, float] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    def peak(self, dtype: str) -> float | None:
        """Return the peak FLOP/s in fp16, bf16 or fp32, or None if unknown."""
        return self.peaks[dtype] * 1e12 if dtype in self.peaks else None


def _card(name: str, memory: float, seen: float | None = None, device: str = "cuda", **rest: Any) -> Card:
    """Make a card from sizes in GiB. By default, torch sees all memory except the driver's share."""
    seen = seen if seen is not None else max(0, memory - (DRIVER / GIB if device == "cuda" else 0))
    return Card(name, int(memory * GIB), int(seen * GIB), device, **rest)


@cache
def cards() -> tuple[Card, ...]:
    """Return all cards, smallest memory first."""
    return tuple(_card(**row) for row in read_json(Path(__file__).with_name("cards.json"))["cards"])


def of_size(gigabytes: float) -> Card:
    """Make a card from its nominal memory: 24 means 24 GiB. Raises: BadValue unless 0 < gigabytes <= 1,000,000."""
    if not (isinstance(gigabytes, Real) and 0 < gigabytes <= 10**6):
        raise BadValue(f"a card's memory must be above 0 GB and at most 1,000,000 GB, not {gigabytes!r}")
    return _card(f"{gigabytes:g} GB card", gigabytes)


def usable(card: Card) -> int:
    """Return the bytes left for a step: `seen` minus the context and 3% for gaps (on a CPU: SYSTEM and PROCESS)."""
    lost = SYSTEM + PROCESS if card.device == "cpu" else CONTEXT + int(FRAGMENTATION * card.seen)
    return max(0, card.seen - lost)


def card(name: str) -> Card:
    """Return the card whose name contains these words, in any order and in any case, such as "4090" or "a100 80".

    Raises: NotFound if no card matches, and BadValue if several do.
    """

    def words(text: str) -> set[str]:
        return set(text.lower().replace("-", " ").replace(",", " ").replace("gb", " gb").split())

    wanted = words(name)
    matches = [card for card in cards() if wanted and wanted <= words(card.name)]
    matches = [card for card in matches if wanted == words(card.name)] or matches  # prefer an exact match
    if not matches:
        names = [card.name for card in cards()]
        raise NotFound(f"no card '{name}'; nearest: {nearest(name, names)}; for other cards, use memory with --gpu-gb")
    if len(matches) > 1:
        raise BadValue(f"'{name}' is ambiguous: {' or '.join(card.name for card in matches)}; be more specific")
    return matches[0]


def seconds(flops: float, card: Card, dtype: str = "bf16") -> float:
    """Return the training time: FLOPs / (peak x utilization), without loading, validation or waiting for data.

    Raises: BadValue if the card's peak in this dtype is unknown.
    """
    if not (peak := card.peak(dtype)):
        raise BadValue(f"the {dtype} peak of the {card.name} is unknown; measure its FLOP/s, or choose another card")
    return flops / (peak * UTILISATION)

"""Cards to train on, from a laptop's to a data centre's: memory, peaks, and what of the memory is left to use.

The makers' "24 GB" on a graphics card means 24 GiB, and so it does here; torch sees less of it, by a little on a card
for games and by a sixteenth where a part of the memory holds error correction. Peaks are of dense products, without the
doubling for sparse matrices: fp16 and bf16 with sums in fp32, and fp32 without TF32, as PyTorch multiplies unless told
otherwise. All figures are data sheets and `torch.cuda` as remembered: none was looked up again or measured here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, NotFound, nearest

STANDING = "memory"
"""Where all figures of the cards come from: data sheets as remembered, none confirmed."""

CONTEXT = 8 * GIB // 10
"""Bytes that CUDA's context and the libraries' workspaces take on a card before the first tensor: about 0.8 GiB."""

FRAGMENTATION = 0.03
"""Share of what torch sees that is lost to gaps between tensors; a rule of thumb."""

DRIVER = 4 * GIB // 10
"""Bytes of a card without error correction that its driver keeps from every program: about 0.4 GiB."""

SYSTEM = 3 * GIB
"""Bytes that an operating system with a browser open keeps of a laptop's memory; a rule of thumb."""


PROCESS = GIB // 2
"""Bytes that Python takes with torch and transformers imported, before any model: about 0.5 GiB.

Measured on Linux, torch 2.13 and transformers 5.24: 0.36 GiB resident after importing what trains, 0.39 GiB with a
panel; the rest is for the kernels and threads of the first step.
"""


UTILISATION = 0.40
"""Share of a card's peak that a well-run training reaches: 30 to 55 % is reported, less for small models."""


@dataclass(frozen=True)
class Card:
    """A place to train.

    name      as its maker writes it
    memory    bytes, nominal: an RTX 4090's 24 GB are 24 GiB, 24 * 2**30
    seen      bytes that torch reports: `torch.cuda.get_device_properties(0).total_memory`; of a CPU the nominal ones
    half      10^12 operations a second in fp16, and in bf16 where there is such arithmetic; None where it is not known
    fp32      10^12 operations a second in fp32; None where it is not known
    where     laptop, desktop or data centre
    device    whose kernels it runs: cuda or cpu
    bf16      whether it has bf16 arithmetic; where not, PyTorch emulates it slowly
    flash     whether it runs flash attention
    """

    name: str
    memory: int
    seen: int
    half: float | None
    fp32: float | None
    where: str
    device: str = "cuda"
    bf16: bool = True
    flash: bool = True

    def peak(self, dtype: str) -> float | None:
        """Operations a second in fp16, bf16 or fp32; None where it is not known."""
        found = self.fp32 if dtype == "fp32" else None if dtype == "bf16" and not self.bf16 else self.half
        return found and found * 1e12


def _laptop(gigabytes: int, fp32: float) -> Card:
    """A laptop that trains on its processor, which rarely has bf16 arithmetic."""
    size = gigabytes * GIB
    name = f"{gigabytes} GB laptop, CPU"
    return Card(name, size, size, None, fp32, "laptop", "cpu", bf16=False, flash=False)


def _plain(name: str, gigabytes: int, half: float, fp32: float, where: str = "desktop") -> Card:
    """A card for games: no error correction, so that torch sees all but what the driver keeps."""
    return Card(name, gigabytes * GIB, gigabytes * GIB - DRIVER, half, fp32, where)


def _board(name: str, gigabytes: int, seen: float, half: float, fp32: float, where: str = "data centre") -> Card:
    """A card with error correction; `seen` in GiB."""
    return Card(name, gigabytes * GIB, int(seen * GIB), half, fp32, where)


# Name, GB, of boards the GiB seen, then 10^12 operations a second in 16 bits and in fp32.
CARDS = (
    _laptop(8, 0.2),
    _laptop(16, 0.4),
    _plain("RTX 4060 Laptop 8 GB", 8, 23, 11.6, "laptop"),
    _plain("RTX 4060 8 GB", 8, 30, 15.1),
    _plain("RTX 3060 12 GB", 12, 25, 12.7),
    replace(_board("T4 16 GB", 16, 14.6, 65, 8.1), bf16=False, flash=False),
    _plain("RTX 3090 24 GB", 24, 71, 35.6),
    _plain("RTX 4090 24 GB", 24, 165, 82.6),
    _board("L4 24 GB", 24, 22.2, 121, 30.3),
    _board("A10G 24 GB", 24, 22.2, 70, 31.2),
    _plain("RTX 5090 32 GB", 32, 209, 104.8),
    _board("A100 40 GB", 40, 39.4, 312, 19.5),
    _board("L40S 48 GB", 48, 44.5, 362, 91.6),
    _board("RTX A6000 48 GB", 48, 47.5, 155, 38.7, "desktop"),
    _board("A100 80 GB", 80, 79.2, 312, 19.5),
    _board("H100 80 GB", 80, 79.2, 989, 66.9),
    _board("H200 141 GB", 141, 139.8, 989, 66.9),
    _board("B200 192 GB", 192, 179, 2250, 75),
)

LARGEST = 1_000_000  # GB that one may ask for


def cards() -> tuple[Card, ...]:
    """All cards, the smallest memory first."""
    return tuple(sorted(CARDS, key=lambda card: card.memory))


def usable(card: Card) -> int:
    """Bytes left for a training step: seen - context - 3 % for gaps; on a CPU seen - system - Python with torch."""
    if card.device == "cpu":
        return max(0, card.seen - SYSTEM - PROCESS)
    return max(0, card.seen - CONTEXT - int(FRAGMENTATION * card.seen))


def card(name: str) -> Card:
    """The one card whose name holds the words given, in any case and order: "4090", "a100 80".

    Raises: NotFound when none does, BadValue when several do; both name cards.
    """
    words = _words(name)
    found = [one for one in CARDS if all(word in one.name.lower() for word in words)]
    whole = [one for one in found if words <= _words(one.name)]
    exact = [one for one in whole if words == _words(one.name)]  # all words of one card's name may be in another's
    found = exact or whole or found
    if not found or not words:
        raise NotFound(f"no card '{name}'; nearest: {nearest(name, [one.name for one in cards()])}; or give --gpu-gb")
    if len(found) > 1:
        raise BadValue(f"'{name}' could be {' or '.join(one.name for one in found)}; write more of its name")
    return found[0]


def _words(name: str) -> set[str]:
    return set(name.lower().replace("-", " ").replace(",", " ").split())


def of_size(gigabytes: float) -> Card:
    """A card of so many GB, as its maker writes them: 24 means 24 GiB. No more is known of it than that.

    Raises: BadValue unless the number is above 0 and at most a million.
    """
    if not 0 < gigabytes <= LARGEST:
        raise BadValue(f"a card's memory must be above 0 GB and at most {LARGEST:,}, not {gigabytes!r}")
    size = int(gigabytes * GIB)
    return Card(f"{gigabytes:g} GB card", size, max(0, size - DRIVER), None, None, "any")


def notes(card: Card, dtype: str) -> tuple[str, ...]:
    """What a card lacks for a step in this dtype, in sentences."""
    if card.device == "cpu" or (card.bf16 and card.flash):
        lacks = card.device == "cpu" and dtype != "fp32"
        return (f"few laptops' processors have fast {dtype} arithmetic; fp32 is the usual choice there",) * lacks
    if dtype == "bf16" and not card.bf16:
        return (
            f"{card.name} has no bf16 arithmetic: PyTorch emulates it slowly, and attention then writes out its "
            "scores, which are not in this figure; use --dtype fp16",
        )
    return (f"{card.name} has no flash attention: PyTorch's memory-efficient kernel keeps as much and is slower",)


def seconds(flops: float, card: Card, utilisation: float = UTILISATION, dtype: str = "bf16") -> float:
    """Seconds that so many floating-point operations of training take: FLOPs / (the card's peak x the share reached).

    Loading, validation and waiting for data are not in it.
    Raises: BadValue for a share outside (0, 1] and where the card's peak in the dtype is not known.
    """
    if not 0 < utilisation <= 1:
        raise BadValue(f"utilisation is a share above 0 and at most 1, not {utilisation!r}")
    peak = card.peak(dtype)
    if not peak:
        raise BadValue(f"the peak of a {card.name} in {dtype} is not known; name another card, or measure its FLOP/s")
    return flops / (peak * utilisation)

"""What merging did, in numbers: how much of each update the base's dtype rounded away, and what was stood in for.

    exact   W + scaling * B A            in fp32
    kept    exact, rounded to W's dtype
    rounding / update = ||exact - kept|| / ||exact - W||        0.1: the merged model has a tenth of noise in its update
    lost    numbers that should have moved and did not: the update was less than half a step of the dtype

bf16 has 8 bits: from 1 the next number is 1.0078, so of an update of 0.003 nothing is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

SHORT = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


@dataclass(frozen=True)
class Rounding:
    """What became of one tensor. `update` and `rounding` are norms, `numbers` and `lost` count."""

    module: str
    dtype: str
    numbers: int
    update: float
    rounding: float
    lost: int

    @property
    def relative(self) -> float:
        """||rounding|| / ||update||; 0 where nothing was to change."""
        return self.rounding / self.update if self.update else 0.0


def rounding_of(module: str, frozen: Tensor, new: Tensor) -> Rounding:
    """What writing `new`, in fp32, into `frozen` of its own dtype and the same shape will cost."""
    old, kept = frozen.detach().float(), new.detach().to(frozen.dtype).float()
    update = new.detach() - old
    lost = ((update != 0) & (kept == old)).sum()
    dtype = SHORT.get(str(frozen.dtype), str(frozen.dtype))
    norms = float(update.norm()), float((new.detach() - kept).norm())
    return Rounding(module, dtype, old.numel(), *norms, int(lost))


@dataclass(frozen=True)
class MergeReport:
    """What merging did to a model.

    rounded       each tensor that was written, in the model's order
    untied        layers whose weight another layer shared, and which have their own now
    dequantised   layers that were quantised and are plain now
    added_bytes   what these two, and fp32 where it was asked for, add to the model's weights
    heads         each tensor of a head that took the frozen one's place, when merging was for good; `update` is the
                  whole of it
    """

    rounded: tuple[Rounding, ...]
    untied: tuple[str, ...] = ()
    dequantised: tuple[str, ...] = ()
    added_bytes: int = 0
    heads: tuple[Rounding, ...] = ()

    @property
    def rounding(self) -> float:
        """||rounding|| / ||update|| over the whole model but its heads; 0 in fp32, where the sum itself is made."""
        update = math.hypot(*(r.update for r in self.rounded))
        return math.hypot(*(r.rounding for r in self.rounded)) / update if update else 0.0

    @property
    def lost(self) -> float:
        """The share of all numbers written that should have moved and did not."""
        return sum(r.lost for r in self.rounded) / max(sum(r.numbers for r in self.rounded), 1)

    @property
    def worst(self) -> Rounding | None:
        """Where rounding took the largest part of the update."""
        return max(self.rounded, key=lambda r: r.relative, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values: the totals, and each tensor."""
        totals = {"rounding": self.rounding, "lost": self.lost, "added_bytes": self.added_bytes}
        replaced = {"untied": list(self.untied), "dequantised": list(self.dequantised)}
        return totals | replaced | {"tensors": _plain(self.rounded), "heads": _plain(self.heads)}

    def __str__(self) -> str:
        return "\n".join([self._written(), *self._replaced()])

    def _written(self) -> str:
        worst, dtypes = self.worst, " and ".join(sorted({r.dtype for r in self.rounded}))
        if worst is None:
            return "nothing was folded into a weight"
        tensors = f"{len(self.rounded)} tensor{'s' * (len(self.rounded) != 1)}"
        if not self.rounding:
            return f"{tensors} merged in {dtypes}, which rounds nothing beyond the sum itself"
        return (
            f"{tensors} merged in {dtypes}: rounding is {self.rounding:.1%} of the update "
            f"(most in {worst.module}: {worst.relative:.1%}), and {self.lost:.1%} of the numbers did not move at all; "
            "merge in fp32 to keep them"
        )

    def _replaced(self) -> list[str]:
        more = f"the weights grow by {self.added_bytes:,} bytes"
        said = []
        if self.untied:
            said.append(f"untied: {', '.join(self.untied)}, so that only one of two layers moves; {more}")
        if self.dequantised:
            said.append(
                f"dequantised: {len(self.dequantised)} layers ({self.dequantised[0]}, ...) are no longer quantised, "
                f"their old rounding stays in them; {more}"
            )
        return said


def _plain(rounded: Sequence[Rounding]) -> list[dict[str, Any]]:
    return [asdict(r) | {"relative": r.relative} for r in rounded]

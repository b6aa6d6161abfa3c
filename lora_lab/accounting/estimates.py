"""What an accountant answers, whether it predicts, traces or measures: one shape, to be laid side by side."""

from __future__ import annotations

from dataclasses import dataclass

NOTES = (
    "compile, autocast, offload and chunked losses are not in it: this is eager PyTorch with transformers' models",
    "bytes of live tensors; a GPU's context (about 0.5 to 1 GiB), rounding and fragmentation come on top",
)
"""What a predicted and a traced figure leave out."""


@dataclass(frozen=True)
class Term:
    """One summand: what it is for, a name, how it is made, bytes."""

    category: str
    symbol: str
    formula: str
    bytes: int


@dataclass(frozen=True)
class Estimate:
    """The peak of a step, when it falls, and what lives then.

    mode      predicted (closed form), traced (fake tensors) or measured
    moments   the candidates for the peak: bytes by moment
    notes     what the figure leaves out
    reserved  measured on a GPU: what its allocator took for it;  process: what the whole process or device holds
    Units: bytes.
    """

    mode: str
    peak: int
    at: str
    terms: tuple[Term, ...]
    moments: dict[str, int]
    notes: tuple[str, ...] = ()
    reserved: int | None = None
    process: int | None = None

    @property
    def categories(self) -> dict[str, int]:
        """Bytes at the peak by category; they sum to the peak."""
        sums: dict[str, int] = {}
        for term in self.terms:
            sums[term.category] = sums.get(term.category, 0) + term.bytes
        return sums

"""A pack split into parts that run in parallel, one per core, and synchronize once per step.

    members 0-7 on core 0: forward, backward, update        members 8-15 on core 1: the same, for their own rows

By default torch splits each operation across its threads, which then wait for the slowest hundreds of times per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
from torch import nn

MOST = 4  # parts: with more, the interpreter lock keeps threads waiting
Out = TypeVar("Out")


class Parts(nn.ModuleList):
    """One model for each part; `sizes` is how many members each has, in order."""

    def __init__(self, models: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__(models)
        self.config: Any = models[0].config
        self.members = [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]
        self.pool = ThreadPoolExecutor(len(models))


def cut(members: int, device: str) -> list[int]:
    """The number of members in each part, as equal as possible; one part on a GPU."""
    parts = min(members, MOST, torch.get_num_threads()) if device == "cpu" else 1
    return [members * (i + 1) // parts - members * i // parts for i in range(parts)]


def in_parts(work: Callable[[nn.Module, slice], Sequence[Out]], model: nn.Module, members: int) -> list[Out]:
    """Run work(part, slice of its members) for all parts at once; return the results of all members in order.

    Each part gets an equal share of torch's threads. A model without parts runs in this thread, for all members.
    """
    if not isinstance(model, Parts):
        return list(work(model, slice(0, members)))
    threads = torch.get_num_threads()

    def on_its_own(part: nn.Module, own: slice) -> Sequence[Out]:
        torch.set_num_threads(max(1, threads // len(model)))  # of this thread, and of threads started meanwhile
        return work(part, own)

    try:
        return [one for found in model.pool.map(on_its_own, model, model.members) for one in found]
    finally:
        torch.set_num_threads(threads)

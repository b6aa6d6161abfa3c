"""Split a pack into parts that run in parallel, one per core, and synchronize once per step.

    members 0-7 on core 0: forward, backward, update        members 8-15 on core 1: the same for their rows

By default, torch splits each operation across its threads, which wait for the slowest hundreds of times per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
from torch import nn

MOST = 4  # parts: with more, threads wait for the interpreter lock
Out = TypeVar("Out")


class Parts(nn.ModuleList):
    """One model per part; `sizes` is the number of members in each, in order."""

    def __init__(self, models: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__(models)
        self.config: Any = models[0].config
        self.members = [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]
        self.pool = ThreadPoolExecutor(len(models))


def cut(members: int, device: str) -> list[int]:
    """Return the number of members in each part, as equal as possible; one part on a GPU."""
    parts = min(members, MOST, torch.get_num_threads()) if device == "cpu" else 1
    return [members * (i + 1) // parts - members * i // parts for i in range(parts)]


def in_parts(work: Callable[[nn.Module, slice], Sequence[Out]], model: nn.Module, members: int) -> list[Out]:
    """Run work(part, slice of its members) for all parts at once; return the results of all members in order.

    Each part gets an equal share of torch's threads. A model without parts runs in this thread, for all members.
    """
    if not isinstance(model, Parts):
        return list(work(model, slice(0, members)))
    threads = torch.get_num_threads()

    def run_part(part: nn.Module, members_of_part: slice) -> Sequence[Out]:
        torch.set_num_threads(max(1, threads // len(model)))  # of this thread, and of threads started meanwhile
        return work(part, members_of_part)

    try:
        return [result for results in model.pool.map(run_part, model, model.members) for result in results]
    finally:
        torch.set_num_threads(threads)

"""The lanes of a pack in parts, one for each core, which wait for each other once a step.

    lanes 0-7   on core 0: forward, backward, update        lanes 8-15   on core 1: the same, of their own rows

torch divides every single operation among its threads instead, and hundreds of times a step all wait for the slowest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
from torch import nn

MOST = 4  # parts: Python runs one thread at a time, and hands operations to no more than these fast enough
Out = TypeVar("Out")


class Parts(nn.ModuleList):
    """Models that each answer for some lanes of a pack, `sizes` of them, in the lanes' order."""

    def __init__(self, models: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        super().__init__(models)
        self.config: Any = models[0].config
        self.lanes = [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]
        self.pool = ThreadPoolExecutor(len(models))


def cut(lanes: int, device: str) -> list[int]:
    """How many lanes each part has."""
    parts = min(lanes, MOST, torch.get_num_threads()) if device == "cpu" else 1
    return [lanes * (i + 1) // parts - lanes * i // parts for i in range(parts)]


def in_parts(work: Callable[[nn.Module, slice], Sequence[Out]], model: nn.Module, lanes: int) -> list[Out]:
    """work(part, its lanes) of all parts at once, each with its share of torch's threads: what it gives for each lane.

    A model that is not in parts does its work here, for all lanes.
    """
    if not isinstance(model, Parts):
        return list(work(model, slice(0, lanes)))
    threads = torch.get_num_threads()

    def on_its_own(part: nn.Module, own: slice) -> Sequence[Out]:
        torch.set_num_threads(max(1, threads // len(model)))  # of this thread; and of those begun meanwhile
        return work(part, own)

    try:
        return [one for found in model.pool.map(on_its_own, model, model.lanes) for one in found]
    finally:
        torch.set_num_threads(threads)

"""How much memory a piece of work needs: the bytes of live tensors, followed storage by storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside the block, follows every storage that an operation makes until nothing refers to it any more.

    `now` and `peak` are bytes. What was there before the block (weights, optimizer state) is not counted, nor is
    memory that a kernel takes and gives back within one operation. A step's backward is followed too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):  # made before the block, for else it would be known
            self._know(storage, 0)
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            self._know(storage, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _know(self, storage: torch.UntypedStorage, size: int) -> None:
        address = storage._cdata
        if address not in self._known:
            self._known.add(address)
            self.now += size
            weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors that `work` has alive at one time, beyond what was alive before."""
    with LiveBytes() as live:
        work()
    return live.peak

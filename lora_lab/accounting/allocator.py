"""How much memory PyTorch's caching allocator takes from a GPU for given tensors: *reserved*, beside *allocated*.

The rules of c10/cuda/CUDACachingAllocator.cpp, with its default settings:

    a tensor        is rounded up to 512 bytes
    up to 1 MiB     it comes out of segments of 2 MiB;  below 10 MiB, out of segments of 20 MiB
    larger          it gets a segment of its own, rounded up to 2 MiB
    a free block    the smallest that is large enough is taken, in its own pool; what is left over is split off when it
                    is at least 512 bytes (small pool) or more than 1 MiB (large pool)
    freeing         joins a block with free neighbors; segments are kept for later, until `empty_cache`

A real GPU adds its context, workspaces of cuBLAS, and segments given back when memory runs out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

MIB = 2**20
ROUND, SMALL, FAR = 512, MIB, 2**50  # segments lie far apart, so that blocks of different ones never touch
EMPTY_CACHE = (-1, 0)  # in a history: torch.cuda.empty_cache()


class Block(NamedTuple):
    """Part of a segment. Units: bytes."""

    size: int
    address: int
    small: bool
    free: bool


class Allocator:
    """`reserved` is the bytes of all segments; `allocated` the bytes in use, rounded up tensor by tensor."""

    def __init__(self) -> None:
        self.reserved = self.allocated = self.segments = 0
        self._pools: dict[bool, list[Block]] = {True: [], False: []}  # small? -> free blocks, the smallest first
        self._starts: dict[int, Block] = {}
        self._ends: dict[int, Block] = {}

    def malloc(self, size: int) -> int:
        """The address of a block of at least so many bytes."""
        size = max(ROUND, -(-size // ROUND) * ROUND)
        small = size <= SMALL
        pool = self._pools[small]
        at = bisect_left(pool, (size,))
        if at < len(pool):
            found = self._remove(pool[at])
        else:
            segment = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            self.segments, self.reserved = self.segments + 1, self.reserved + segment
            found = Block(segment, self.segments * FAR, small, True)
        rest = found.size - size
        if rest >= ROUND if small else rest > SMALL:
            self._add(Block(rest, found.address + size, small, True))
            found = found._replace(size=size)
        self._add(found._replace(free=False))
        self.allocated += found.size
        return found.address

    def free(self, address: int) -> None:
        """Give a block back, and join it with its free neighbors."""
        size, address, small, _ = self._remove(self._starts[address])
        self.allocated -= size
        before, behind = self._ends.get(address), self._starts.get(address + size)
        if behind is not None and behind.free:
            size += self._remove(behind).size
        if before is not None and before.free:
            size, address = size + self._remove(before).size, before.address
        self._add(Block(size, address, small, True))

    def empty_cache(self) -> None:
        """Give back the segments of which no part is in use."""
        for block in [block for pool in self._pools.values() for block in pool]:
            if block.address % FAR == 0 and block.address + block.size not in self._starts:
                self._remove(block)
                self.reserved -= block.size

    def _add(self, block: Block) -> None:
        self._starts[block.address] = self._ends[block.address + block.size] = block
        if block.free:
            insort(self._pools[block.small], block)

    def _remove(self, block: Block) -> Block:
        del self._starts[block.address], self._ends[block.address + block.size]
        if block.free:
            self._pools[block.small].remove(block)
        return block


def reserved(events: Iterable[tuple[int, int]]) -> int:
    """The most bytes reserved over a history of (storage's number, bytes when born or 0 when freed) and EMPTY_CACHE."""
    allocator, addresses, most = Allocator(), dict[int, int](), 0
    for number, size in events:
        if (number, size) == EMPTY_CACHE:
            allocator.empty_cache()
        elif size:
            addresses[number] = allocator.malloc(size)
            most = max(most, allocator.reserved)
        else:
            allocator.free(addresses.pop(number))
    return most

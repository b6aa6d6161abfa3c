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
from itertools import count

MIB = 2**20
ROUND, FAR = 512, 2**50  # segments lie far apart, so that blocks of different ones never touch
EMPTY_CACHE = (-1, 0)  # in a history: torch.cuda.empty_cache()


class Allocator:
    """`reserved` is the bytes of all segments."""

    def __init__(self) -> None:
        self.reserved = 0
        self._places = count(FAR, FAR)
        self._segments: dict[int, int] = {}  # address -> bytes, as in the next two
        self._used: dict[int, int] = {}
        self._free: dict[int, int] = {}
        self._ends: dict[int, int] = {}  # where a free block ends -> its address
        self._pools: tuple[list[tuple[int, int]], ...] = [], []  # large and small free blocks: sorted (bytes, address)

    def malloc(self, size: int) -> int:
        """The address of a block of at least so many bytes."""
        size = -(-size // ROUND) * ROUND
        small = size <= MIB
        pool = self._pools[small]
        at = bisect_left(pool, (size, 0))
        if at < len(pool):
            address = pool[at][1]
            found = self._take(address)
        else:
            found = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            address = next(self._places)
            self._segments[address] = found
            self.reserved += found
        if found - size >= (ROUND if small else MIB + 1):
            self._give(address + size, found - size)
            found = size
        self._used[address] = found
        return address

    def free(self, address: int) -> None:
        """Give a block back, and join it with its free neighbors."""
        size = self._used.pop(address)
        if address + size in self._free:
            size += self._take(address + size)
        if address in self._ends:
            address = self._ends[address]
            size += self._take(address)
        self._give(address, size)

    def empty_cache(self) -> None:
        """Give back the segments of which no part is in use."""
        for address, size in list(self._free.items()):
            if self._segments.get(address) == size:
                self._take(address)
                self.reserved -= self._segments.pop(address)

    def _give(self, address: int, size: int) -> None:
        self._free[address], self._ends[address + size] = size, address
        insort(self._pool(address), (size, address))

    def _take(self, address: int) -> int:
        size = self._free.pop(address)
        del self._ends[address + size]
        self._pool(address).remove((size, address))
        return size

    def _pool(self, address: int) -> list[tuple[int, int]]:
        return self._pools[self._segments[address - address % FAR] == 2 * MIB]


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

"""Simulate PyTorch's caching allocator: the GPU memory that it reserves, not just allocates, for given tensors.

The rules follow c10/cuda/CUDACachingAllocator.cpp. Sizes are rounded up to 512 bytes. A tensor of up to 1 MiB comes
from a 2 MiB segment, one below 10 MiB from a 20 MiB segment; a larger one gets its own segment, rounded up to 2 MiB.
The allocator takes the smallest free block that fits from the small or the large pool, and splits off the remainder if
it is at least 512 bytes (small) or more than 1 MiB (large). A freed block merges with its free neighbors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
EMPTY_CACHE = (-1, 0)  # in a history, a call of torch.cuda.empty_cache()


@dataclass(eq=False)
class Block:  # part of a segment, linked to its neighbors
    address: int
    size: int
    small: bool
    before: Block | None = None
    after: Block | None = None


class Allocator:
    """A simulated allocator; `reserved` is the size of all segments in bytes."""

    def __init__(self) -> None:
        self.reserved = self._end = 0
        self._free: set[Block] = set()

    def malloc(self, size: int) -> Block:
        """Allocate a block of at least `size` bytes."""
        size = -(-size // 512) * 512
        small = size <= MIB
        candidates = [b for b in self._free if b.small == small and b.size >= size]
        if candidates:
            block = min(candidates, key=lambda b: (b.size, b.address))
            self._free.remove(block)
        else:
            segment = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            block = Block(self._end, segment, small)
            self._end += segment
            self.reserved += segment
        if block.size - size >= (512 if small else MIB + 1):
            rest = Block(block.address + size, block.size - size, small, block, block.after)
            if rest.after:
                rest.after.before = rest
            block.size, block.after = size, rest
            self._free.add(rest)
        return block

    def free(self, block: Block) -> None:
        """Free a block and merge it with its free neighbors."""
        if block.after in self._free:
            self._merge(block, block.after)
        if block.before in self._free:
            self._merge(block.before, block)
        else:
            self._free.add(block)

    def _merge(self, block: Block, after: Block) -> None:
        block.size, block.after = block.size + after.size, after.after
        if block.after:
            block.after.before = block
        self._free.discard(after)

    def empty_cache(self) -> None:
        """Release the segments that are entirely free."""
        for block in [b for b in self._free if not b.before and not b.after]:
            self._free.remove(block)
            self.reserved -= block.size


def reserved(events: Iterable[tuple[int, int]]) -> int:
    """Return the peak reserved bytes; an event is (storage number, bytes, or 0 when freed), or EMPTY_CACHE."""
    allocator, blocks, peak = Allocator(), dict[int, Block](), 0
    for number, size in events:
        if (number, size) == EMPTY_CACHE:
            allocator.empty_cache()
        elif size:
            blocks[number] = allocator.malloc(size)
            peak = max(peak, allocator.reserved)
        else:
            allocator.free(blocks.pop(number))
    return peak

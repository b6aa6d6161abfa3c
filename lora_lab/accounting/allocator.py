"""How much memory PyTorch's caching allocator takes from a GPU for given tensors: *reserved*, beside *allocated*.

The rules of c10/cuda/CUDACachingAllocator.cpp: a tensor is rounded up to 512 bytes. Up to 1 MiB it comes out of a
segment of 2 MiB, below 10 MiB out of one of 20 MiB; a larger one has its own, rounded up to 2 MiB. The smallest free
block that is large enough is taken, from the pool of small or of large blocks; the rest is split off when it is at
least 512 bytes (small) or more than 1 MiB (large). A freed block joins its free neighbors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
EMPTY_CACHE = (-1, 0)  # in a history: torch.cuda.empty_cache()


@dataclass(eq=False)
class Block:  # of a segment, between its neighbors
    address: int
    size: int
    small: bool
    before: Block | None = None
    after: Block | None = None


class Allocator:
    """`reserved` is the bytes of all segments."""

    def __init__(self) -> None:
        self.reserved = self._end = 0
        self._free: set[Block] = set()

    def malloc(self, size: int) -> Block:
        """A block of at least `size` bytes."""
        size = -(-size // 512) * 512
        small = size <= MIB
        fitting = [b for b in self._free if b.small == small and b.size >= size]
        if fitting:
            block = min(fitting, key=lambda b: (b.size, b.address))
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
        """Return a block and join it with its free neighbors."""
        if block.after in self._free:
            self._join(block, block.after)
        if block.before in self._free:
            self._join(block.before, block)
        else:
            self._free.add(block)

    def _join(self, block: Block, after: Block) -> None:
        block.size, block.after = block.size + after.size, after.after
        if block.after:
            block.after.before = block
        self._free.discard(after)

    def empty_cache(self) -> None:
        """Give back the segments that are entirely free."""
        for block in [b for b in self._free if not b.before and not b.after]:
            self._free.remove(block)
            self.reserved -= block.size


def reserved(events: Iterable[tuple[int, int]]) -> int:
    """Peak of reserved bytes over a history: (storage's number, bytes when born or 0 when freed), or EMPTY_CACHE."""
    allocator, blocks, most = Allocator(), dict[int, Block](), 0
    for number, size in events:
        if (number, size) == EMPTY_CACHE:
            allocator.empty_cache()
        elif size:
            blocks[number] = allocator.malloc(size)
            most = max(most, allocator.reserved)
        else:
            allocator.free(blocks.pop(number))
    return most

"""Simulate PyTorch's caching allocator: the GPU memory that it reserves, not just allocates, for given tensors.

The rules follow c10/cuda/CUDACachingAllocator.cpp. Sizes are rounded up to 512 bytes. A tensor of up to 1 MiB comes
from a 2 MiB segment, one below 10 MiB from a 20 MiB segment; a larger one gets its own segment, rounded up to 2 MiB.
The allocator takes the smallest free block that fits from the small or the large pool, and splits off the remainder if
it is at least 512 bytes (small) or more than 1 MiB (large). A freed block merges with its free neighbors.
"""

from collections.abc import Iterable

from lora_lab.accounting.units import MIB

EMPTY_CACHE = (-1, 0)  # in a history, a call of torch.cuda.empty_cache()
Block = tuple[bool, int, int]  # whether it is in the small pool, and its first and last address


class Allocator:
    """A simulated allocator; `reserved` is the size of all segments in bytes."""

    def __init__(self) -> None:
        self.reserved = 0
        self._segments: list[Block] = []
        # The free blocks of the large and of the small pool: their ends by start, and their starts by end.
        self._free: tuple[dict[int, int], ...] = ({}, {})
        self._starts: dict[int, int] = {}

    def malloc(self, size: int) -> Block:
        """Allocate a block of at least `size` bytes."""
        size = -(-size // 512) * 512
        small = size <= MIB
        free = self._free[small]
        if fitting := [(end - start, start) for start, end in free.items() if end - start >= size]:
            length, start = min(fitting)
            del self._starts[free.pop(start)]
        else:
            length = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
            start = self._segments[-1][2] + 1 if self._segments else 0  # a gap: segments are not neighbors
            self._segments.append((small, start, start + length))
            self.reserved += length
        if length - size >= (512 if small else MIB + 1):
            self.free((small, start + size, start + length))
            length = size
        return small, start, start + length

    def free(self, block: Block) -> None:
        """Free a block and merge it with its free neighbors."""
        small, start, end = block
        free = self._free[small]
        end = free.pop(end, end)
        start = self._starts.pop(start, start)
        free[start], self._starts[end] = end, start

    def empty_cache(self) -> None:
        """Release the segments that are entirely free."""
        for small, start, end in self._segments:
            if self._free[small].get(start) == end:
                del self._free[small][start], self._starts[end]
                self.reserved -= end - start


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

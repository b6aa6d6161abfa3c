"""Simulate PyTorch's caching allocator to find how much GPU memory it reserves, which is more than it allocates.

The rules follow c10/cuda/CUDACachingAllocator.cpp. Sizes are rounded up to a multiple of 512 bytes. A tensor of up to
1 MiB is placed in a 2 MiB segment, and a larger tensor below 10 MiB in a 20 MiB segment. A tensor of 10 MiB or more
gets its own segment, whose size is a multiple of 2 MiB. From the small or large pool, the allocator takes the smallest
free block that fits. It splits the block if the rest is at least 512 bytes (small pool) or above 1 MiB (large pool).
"""

from collections.abc import Iterable

from lora_lab.accounting.units import MIB

EMPTY_CACHE = (-1, 0)  # the event for a call to `torch.cuda.empty_cache()`
Block = tuple[bool, int, int]  # whether it is in the small pool, and its first and last address


def reserved(events: Iterable[tuple[int, int]]) -> int:
    """Return the peak reserved bytes. Events are `EMPTY_CACHE` or (storage number, bytes), with 0 bytes if freed."""
    segments, blocks = list[Block](), dict[int, Block]()
    pools: tuple[dict[int, int], ...] = ({}, {})  # (large, small): {start: end} of each free block
    total = peak = 0

    def release(small: bool, start: int, end: int) -> None:
        """Free a block and merge it with its free neighbors."""
        free = pools[small]
        end = free.pop(end, end)
        start = next((before for before, its_end in free.items() if its_end == start), start)
        free[start] = end

    for number, size in events:
        if (number, size) == EMPTY_CACHE:
            for small, start, end in segments:
                if pools[small].get(start) == end:  # entirely free
                    del pools[small][start]
                    total -= end - start
        elif size == 0:
            if number in blocks:  # the CTRL model replaces a buffer in step 1, but `events` may repeat that step
                release(*blocks.pop(number))
        else:
            size = -(-size // 512) * 512
            small = size <= MIB
            if fitting := [(end - start, start) for start, end in pools[small].items() if end - start >= size]:
                length, start = min(fitting)
                del pools[small][start]
            else:
                length = 2 * MIB if small else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
                start = segments[-1][2] + 1 if segments else 0  # the gap keeps segments from merging
                segments.append((small, start, start + length))
                total += length
            if length - size >= (512 if small else MIB + 1):
                release(small, start + size, start + length)
                length = size
            blocks[number] = small, start, start + length
            peak = max(peak, total)
    return peak

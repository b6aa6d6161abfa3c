"""How the C library keeps what is freed, on Linux."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next step, in place of giving it back to the system and asking again.

    A pack's tensors of some MiB each would else be mapped anew, and zeroed by the kernel, hundreds of times a step:
    10 to 25 % of its time on 2 cores. Elsewhere than on Linux nothing happens.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: smaller pieces come from the heap
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and the heap is not cut

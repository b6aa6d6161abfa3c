"""One training at a time in a process: all threads draw from one stream of torch's random numbers.

Two panels, or a panel and a cell that calls `train`, would take each other's numbers, and the result would be stored
under a recipe that gives something else alone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lora_lab.training.watching import watched

POLL = 0.1  # seconds between two looks at `stop`
_lock = threading.RLock()  # a thread that trains may call what takes the lock again
_waiting: set[int | None] = set()


@contextmanager
def training_lock(stop: threading.Event | None = None) -> Iterator[bool]:
    """Train inside the block once no other thread does; also a decorator: `@training_lock()`.

    stop   set it to give up waiting: `mine` is then False, and the block must not train
    """
    if not (mine := _lock.acquire(blocking=False)):
        if watched() and threading.current_thread() is threading.main_thread():
            said = "another training runs here, and this one waits for it to end"
            print(f"{said}: interrupt this cell to get at its Stop button", file=sys.stderr)
        _waiting.add(threading.get_ident())
        try:
            while not mine and not (stop is not None and stop.is_set()):
                mine = _lock.acquire(timeout=POLL)
        finally:
            _waiting.discard(threading.get_ident())
    try:
        yield mine
    finally:
        if mine:
            _lock.release()


def waits(thread: threading.Thread | None) -> bool:
    """Whether a thread waits for its turn."""
    return thread is not None and thread.ident in _waiting

"""One training at a time in a process: all threads draw from one stream of torch's random numbers.

Two panels, or a panel and a cell that calls `train`, would take each other's numbers, and what came of it would be kept
under a recipe that gives something else alone. So whoever trains takes a turn, from making the model to the last score.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lora_lab.training.watching import watched

POLL = 0.1  # seconds between two looks at `stop`; and Windows lets nobody interrupt a wait without end
_lock = threading.RLock()  # a turn within a turn of the same thread is the same turn
_waiting: set[int | None] = set()


@contextmanager
def turn(stop: threading.Event | None = None) -> Iterator[bool]:
    """Train inside the block, once no other thread does: `with turn(stop) as mine`, or `@turn()` above a function.

    stop   set it to give up waiting: `mine` is then False, and the block must not train
    """
    mine = _lock.acquire(blocking=False) or _waited(stop)
    try:
        yield mine
    finally:
        if mine:
            _lock.release()


def waits(thread: threading.Thread | None) -> bool:
    """Whether a thread waits for its turn."""
    return thread is not None and thread.ident in _waiting


def _waited(stop: threading.Event | None) -> bool:
    """Wait for the turn; whether it came before `stop` was set."""
    if watched() and threading.current_thread() is threading.main_thread():
        words = "another training is at work here, and this one waits for it to end"
        print(f"{words}: interrupt this cell to get at its Stop button", file=sys.stderr)
    _waiting.add(threading.get_ident())
    try:
        while not _lock.acquire(timeout=POLL):
            if stop is not None and stop.is_set():
                return False
        return True
    finally:
        _waiting.discard(threading.get_ident())

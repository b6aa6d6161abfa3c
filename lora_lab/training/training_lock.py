"""Allow one training at a time in a process, since all threads share torch's random state.

Otherwise two panels, or a panel and a cell that calls `train`, would share one random sequence, and a stored run could
not be reproduced from its recipe.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lora_lab.training.watching import watched

POLL = 0.1  # seconds between checks of `stop`
_lock = threading.RLock()  # a training thread may take the lock again
_waiting: set[int | None] = set()


@contextmanager
def training_lock(stop: threading.Event | None = None) -> Iterator[bool]:
    """Wait until no other thread is training, then run the block. Also a decorator: `@training_lock()`.

    stop   set it to stop waiting; the block then receives False and must not train
    """
    if not (acquired := _lock.acquire(blocking=False)):
        if watched() and threading.current_thread() is threading.main_thread():
            message = "waiting for another training in this kernel to end"
            print(f"{message}; interrupt this cell to reach its Stop button", file=sys.stderr)
        _waiting.add(threading.get_ident())
        try:
            while not acquired and not (stop is not None and stop.is_set()):
                acquired = _lock.acquire(timeout=POLL)
        finally:
            _waiting.discard(threading.get_ident())
    try:
        yield acquired
    finally:
        if acquired:
            _lock.release()


def waits(thread: threading.Thread | None) -> bool:
    """Return whether a thread is waiting for its turn."""
    return thread is not None and thread.ident in _waiting

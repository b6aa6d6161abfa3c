"""Detect whether a person is watching, and let one thread train at a time, without importing torch.

All threads share torch's random state. If two panels (or a panel and a cell that calls `train`) trained at the same
time, they would share one random sequence, and a stored run could not be reproduced from its recipe.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lora_lab.errors import switched_on

POLL = 0.1  # seconds between checks of `stop`
_lock = threading.RLock()  # a training thread may take the lock again
_waiting: set[int | None] = set()


def headless() -> bool:
    """Return whether LORA_LAB_HEADLESS=1 says that nobody is watching (a front end cannot be detected)."""
    return switched_on("LORA_LAB_HEADLESS")


def watched() -> bool:
    """Return whether a person would see a progress bar: in a terminal, or in a notebook that is not headless."""
    return not headless() and ("ipykernel" in sys.modules or sys.stderr.isatty())


@contextmanager
def training_lock(stop: threading.Event | None = None) -> Iterator[bool]:
    """Wait until no other thread is training, then run the `with` block. `@training_lock()` also works as a decorator.

    stop   An event that ends the wait, after which the block receives False and must not train.
    """
    if not (acquired := _lock.acquire(blocking=False)):
        if watched() and threading.current_thread() is threading.main_thread():
            message = "waiting for another training run in this kernel to end"
            print(f"{message}; to use the other run's Stop button, interrupt this cell first", file=sys.stderr)
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
    return thread is not None and thread.ident in _waiting

"""Work in processes of its own, each with its share of the cores.

torch divides every operation among its threads and waits for the slowest. Two processes with one core each take about
1.4 times as many steps per second as one process with both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from lora_lab.errors import Failed, LabError, LabWarning
from lora_lab.experiments import plan
from lora_lab.training import device
from lora_lab.training.memory_check import free_bytes, need_of
from lora_lab.training.recipe import Recipe

Item = TypeVar("Item")
Out = TypeVar("Out")
Say = Callable[[str], None]
MOST = 4  # processes: each holds a model and its libraries
PROCESS_BYTES = 2**30  # of Python with torch and transformers, before a step
WORTH = 5000  # steps below which starting processes takes longer than it saves
_said: Any = None  # in a process: the queue for what it says


def each(
    work: Callable[[Item, Say], Out], items: Sequence[Item], count: int, say: Say, *, long: Callable[[Item], bool]
) -> Iterator[tuple[int, Out]]:
    """(number, work(item, say)) of every item as it is done; `count` at once, each in a process of its own, or 1 here.

    work    a function that can be pickled, as must be items and results
    long    items to begin first, so that no process waits for another at the longest of all
    Raises: whatever `work` does; Failed if a process was killed.
    """
    if count == 1:
        yield from ((number, work(item, say)) for number, item in enumerate(items))
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads hangs
    said, others = context.SimpleQueue(), set(multiprocessing.active_children())
    teller = threading.Thread(target=lambda: deque(map(say, iter(said.get, None)), maxlen=0), daemon=True)
    teller.start()
    try:
        with ProcessPoolExecutor(count, context, _begin, (said, max(1, torch.get_num_threads() // count))) as pool:
            try:
                first = sorted(range(len(items)), key=lambda number: not long(items[number]))
                numbers = {pool.submit(_in_process, work, items[number]): number for number in first}
                for future in as_completed(numbers):
                    yield numbers[future], future.result()
            except BaseException:  # the first error, or Ctrl-C: end all at once, or leaving would wait for them
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                raise
    except BrokenProcessPool:
        raise Failed(
            "a process was killed, perhaps for want of memory: the same call with 1 worker goes on where it was"
        ) from None
    finally:
        said.put(None)
        teller.join()


def worth(recipes: Sequence[Recipe], steps: int) -> int:
    """Processes that pay for so many steps in all, from cores, recipes and free memory; 1 on a GPU.

    recipes  one of every item, for their memory. Raises: as `device.choose`.
    """
    if steps < WORTH or any(device.choose(32, **recipe.computed).device != "cpu" for recipe in recipes):
        return 1
    try:
        largest = max((need_of(recipe).bytes() for recipe in recipes), default=0)
    except LabError:
        return 1  # nobody knows what it needs
    fitting = int(plan.ROOM * free_bytes("cpu") // (PROCESS_BYTES + largest))
    return max(1, min(MOST, torch.get_num_threads(), len(recipes), fitting))


def _begin(said: Any, threads: int) -> None:
    """In a new process: its share of the cores, and an end with the process that started it."""
    global _said
    _said = said
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    warnings.showwarning = lambda message, category, *_, **__: (
        said.put(f"warning: {message}") if issubclass(category, LabWarning) else None
    )
    torch.set_num_threads(threads)
    os.environ["LORA_LAB_HEADLESS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed drops its locks, so its children must not go on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _in_process(work: Callable[[Item, Say], Out], item: Item) -> Out:
    return work(item, _said.put)

"""Run work in parallel processes, each with its share of the cores.

torch splits every operation across its threads and waits for the slowest one. Two processes, with one core each, run
about 1.4 times as many steps per second as one process with both cores.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from lora_lab.errors import Failed, LabError, LabWarning
from lora_lab.experiments.sweep import ROOM
from lora_lab.training import device
from lora_lab.training.memory_check import free_bytes, need_of
from lora_lab.training.recipe import Recipe

Item = TypeVar("Item")
Out = TypeVar("Out")
Say = Callable[[str], None]
MAX_WORKERS = 4  # each process holds a model and its libraries
PROCESS_BYTES = 2**30  # memory of Python with torch and transformers, before the first step
# Forking a process with torch's threads hangs. The fork server's socket may have a path of at most 107 bytes.
METHOD = "forkserver" if sys.platform == "linux" and len(tempfile.gettempdir()) < 70 else "spawn"
MIN_STEPS = 5000  # steps; below that, starting processes costs more than it saves
_messages: Any = None  # in a worker process: the queue for its messages


def in_processes(
    work: Callable[[Item, Say], Out], items: Sequence[Item], count: int, say: Say, *, long: Callable[[Item], bool]
) -> Iterator[tuple[int, Out]]:
    """Run work(item, say) for all items in `count` processes (1: in this one); yield (index, result) as items finish.

    work    a function; the function, the items and the results must be picklable
    long    selects items to start first, so that no long item is left for the end
    Raises: the errors of `work`; Failed if a process was killed.
    """
    if count == 1:
        yield from ((index, work(item, say)) for index, item in enumerate(items))
        return
    context = multiprocessing.get_context(METHOD)
    context.set_forkserver_preload([__name__])  # imports torch once for all processes
    messages, others = context.SimpleQueue(), set(multiprocessing.active_children())

    def print_messages() -> None:
        while (message := messages.get()) is not None:
            say(message)

    printer = threading.Thread(target=print_messages, daemon=True)
    printer.start()
    try:
        options = messages, max(1, torch.get_num_threads() // count), {**os.environ, "LORA_LAB_HEADLESS": "1"}
        with ProcessPoolExecutor(count, context, _begin, options) as pool:
            try:
                order = sorted(range(len(items)), key=lambda index: not long(items[index]))
                futures = {pool.submit(_in_process, work, items[index]): index for index in order}
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:  # an error or Ctrl-C ends all children; otherwise the pool would wait for them
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                raise
    except BrokenProcessPool:
        why = 'memory ran out, or your script lacks `if __name__ == "__main__":`'
        raise Failed(f"a process was killed, perhaps because {why}: repeat with 1 worker to resume") from None
    finally:
        messages.put(None)
        printer.join()


def process_count(recipes: Sequence[Recipe], steps: int) -> int:
    """Return the best number of processes for this total number of steps, given cores and free memory; 1 on a GPU."""
    if steps < MIN_STEPS or any(device.choose(32, **recipe.computed).device != "cpu" for recipe in recipes):
        return 1
    try:
        largest = max((need_of(recipe).bytes() for recipe in recipes), default=0)
    except LabError:
        return 1  # unknown memory
    fitting = int(ROOM * free_bytes("cpu") // (PROCESS_BYTES + largest))
    return max(1, min(MAX_WORKERS, torch.get_num_threads(), len(recipes), fitting))


def _begin(messages: Any, threads: int, environment: dict[str, str]) -> None:
    """Set up a new process: limit its threads, and make it end with its parent."""
    global _messages
    _messages = messages
    os.environ |= environment  # a fork server keeps the environment that it started with
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    warnings.showwarning = lambda message, category, *_, **__: (
        messages.put(f"warning: {message}") if issubclass(category, LabWarning) else None
    )
    torch.set_num_threads(threads)

    def end_with_parent(parent: Any) -> None:  # if the parent is killed, its locks are released, so stop writing
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, args=[multiprocessing.parent_process()], daemon=True).start()


def _in_process(work: Callable[[Item, Say], Out], item: Item) -> Out:
    return work(item, _messages.put)

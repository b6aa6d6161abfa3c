"""Work that stands apart in processes of its own, each with its share of the cores.

    items, long ones first -> a process takes the next one -> results in the items' order

torch divides every single operation among its threads and waits for the slowest; processes wait for nobody. Two with
one core each take about 1.4 times as many steps a second as one with both.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
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
MOST = 4  # processes: each holds a model and its libraries, and beyond these little is gained
PROCESS_BYTES = 2**30  # of Python with torch and transformers, before a step
WORTH = 5000  # steps below which starting processes takes longer than it saves
_said: Any = None  # in a process: where what it says goes


def each(
    work: Callable[[Item, Say], Out], items: Sequence[Item], count: int, say: Say, *, long: Callable[[Item], bool],
    done: Callable[[int, Out], None] = lambda number, result: None,
) -> list[Out]:  # fmt: skip
    """work(item, say) of every item, `count` at once, each in a process of its own; with 1 here, one after another.

    work    a function that can be pickled, as must be items and results
    long    items that are begun first, so that no process waits for another that is at the longest of all
    done    is called here with each result as it comes, and its item's number
    Raises: whatever `work` does; Failed where a process was killed.
    """
    if count == 1:
        results = []
        for number, item in enumerate(items):
            results.append(work(item, say))
            done(number, results[-1])
        return results
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads of torch hangs
    said = context.SimpleQueue()
    teller = threading.Thread(target=_tell, args=(said, say), daemon=True)
    teller.start()
    threads, others = max(1, torch.get_num_threads() // count), set(multiprocessing.active_children())
    try:
        with ProcessPoolExecutor(count, context, _begin, (said, threads)) as pool:
            try:
                long_first = sorted(range(len(items)), key=lambda i: not long(items[i]))
                numbers = {pool.submit(_in_process, work, items[i]): i for i in long_first}
                for ended in as_completed(numbers):
                    done(numbers[ended], ended.result())
                return [ended.result() for ended in sorted(numbers, key=lambda future: numbers[future])]
            except (
                BaseException
            ):  # the first error, or an interrupt here: all end at once, or leaving would wait for them
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
    """Processes that pay for so many steps in all: no more than cores, recipes and free memory allow; 1 on a GPU.

    recipes  one of every item, for their memory. Raises: as `device.choose`.
    """
    if steps < WORTH or any(device.choose(32, **recipe.computed).device != "cpu" for recipe in recipes):
        return 1
    largest = max((_step_bytes(recipe) for recipe in recipes), default=0)
    fitting = int(plan.ROOM * free_bytes("cpu") // (PROCESS_BYTES + largest))
    return max(1, min(MOST, torch.get_num_threads(), len(recipes), fitting))


def _step_bytes(recipe: Recipe) -> int:
    try:
        return need_of(recipe).bytes()
    except LabError:
        return 2**62  # nobody knows: one process


def _tell(said: Any, say: Say) -> None:
    for words in iter(said.get, None):
        say(words)


def _begin(said: Any, threads: int) -> None:
    """In a new process: its share of the cores, and an end with the process that started it."""
    global _said
    _said = said
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    warnings.showwarning = _warned
    torch.set_num_threads(threads)
    os.environ["LORA_LAB_HEADLESS"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _warned(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Ours are heard where all is heard; another library's say nothing of the work."""
    if issubclass(category, LabWarning):
        _said.put(f"warning: {message}")


def _end_with_parent() -> None:
    """A killed parent says nothing to its children, and would find its stores locked by them when it is run again."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _in_process(work: Callable[[Item, Say], Out], item: Item) -> Out:
    return work(item, _said.put)

"""A process with all that it has started: what memory they take, the most they took, and an end to them.

Memory is what is resident, not what is reserved: torch reserves addresses that it never touches.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil


def taken(pid: int, seen: set[psutil.Process] | None = None) -> tuple[int, int]:
    """Bytes resident in a process, with what is its own of all that it started; and how many those are.

    They are added to `seen`: when their parent ends they have another, and could not be found any more.
    """
    try:
        process = psutil.Process(pid)
        family = process.children(recursive=True)
        if seen is not None:
            seen.update(family)
        own = sum(one.memory_full_info().uss for one in family)  # a fork shares most of its pages
        return process.memory_info().rss + own, len(family)
    except psutil.Error:
        return 0, 0


def high_water(pid: int) -> int:
    """The most bytes ever resident in one process, as its system counts them; 0 where it does not, or is gone.

    Linux has VmHWM, Windows the peak working set. Of another process macOS tells only what it has now.
    """
    with suppress(OSError, StopIteration):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    with suppress(psutil.Error):
        return int(getattr(psutil.Process(pid).memory_info(), "peak_wset", 0))
    return 0


def wall(pid: int, limit: int) -> bool:
    """Let Linux refuse a process, and what it starts from now on, more than `limit` bytes of data each.

    Data, not addresses: what is writable and its own, touched or not. Returns whether there is such a wall here.
    """
    if sys.platform != "linux":
        return False
    psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (limit, limit))
    return True


def end(pid: int, seen: Iterable[psutil.Process] = ()) -> None:
    """End a process, its group and whatever it has started, with those that `taken` has seen."""
    known = set(seen)
    with suppress(psutil.Error):
        known.add(psutil.Process(pid))
    family = {one for start in known for one in _family(start)}
    if sys.platform != "win32":
        try:
            if os.getpgid(pid) == pid:  # it leads a group of its own by now
                os.killpg(pid, signal.SIGKILL)
        except OSError:
            pass
    for one in family:
        with suppress(psutil.Error):
            one.kill()


def end_children(pid: int, spared: Collection[int | None]) -> None:
    """End all that a process has started, or inherited as Linux's reaper of orphans, but for some."""
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children():
            if child.pid not in spared:
                end(child.pid)


def _family(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


@dataclass
class Watch:
    """Inside the block, a family that has more than `limit` bytes is ended; `peak` is the most that it had.

    Three looks, for each misses something: the family together is looked at every `pause` seconds, and what lives for
    less is missed; the first process's high-water mark misses nothing, but is its alone; `walled` says whether Linux
    itself refuses each process more than the limit.
    """

    pid: int
    limit: int | None = None
    pause: float = 0.05
    peak: int = 0
    most_programs: int = 0
    walled: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self.walled = self.limit is not None and wall(self.pid, self.limit)
        self.look()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.look()
        self._over.set()
        self._thread.join()

    @property
    def exceeded(self) -> bool:
        """Whether the family ever had more than it may."""
        return self.limit is not None and self.peak > self.limit

    def look(self) -> None:
        """Look once, and end the family where it has too much."""
        now, programs = taken(self.pid)
        self.peak = max(self.peak, now, high_water(self.pid))
        self.most_programs = max(self.most_programs, programs)
        if self.exceeded:
            end(self.pid)

    def _look_again(self) -> None:
        while not self._over.wait(self.pause):
            self.look()

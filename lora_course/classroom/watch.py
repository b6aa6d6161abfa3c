"""The memory of a process and of everything it started: a limit and a peak.

Memory is what is resident, not what is reserved: torch reserves addresses that it never touches.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil


def wall(pid: int, limit: int) -> None:
    """Let Linux refuse this process, and what it starts from now on, more than `limit` bytes of writable data each."""
    if sys.platform == "linux":
        psutil.Process(pid).rlimit(psutil.RLIMIT_DATA, (limit, limit))


def high_water(pid: int) -> int:
    """The most bytes ever resident in one process (Linux, Windows); 0 on macOS, which tells only the current size."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    with suppress(psutil.Error):
        return int(getattr(psutil.Process(pid).memory_info(), "peak_wset", 0))
    return 0


class Watch:
    """A context that kills a process and its children when together they hold more than `limit` bytes.

    It polls every `pause` seconds, and asks for the high-water mark of the first process, which polls may miss.
    `peak` is the most bytes seen, `most_programs` the most children at once; more than `programs` are killed, too.
    """

    def __init__(self, pid: int, limit: int = 2**60, programs: int = 2**20, pause: float = 0.05) -> None:
        self.pid, self.limit, self.programs, self.pause = pid, limit, programs, pause
        self.peak = self.most_programs = 0
        self._seen: set[psutil.Process] = set()  # also those whose parent has ended
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Watch:
        if self.limit < 2**60:
            with suppress(psutil.Error):  # it has ended already
                wall(self.pid, self.limit)
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.look()
        self._over.set()
        self._thread.join()

    @property
    def exceeded(self) -> bool:
        """Whether they ever held more memory than they may."""
        return self.peak > self.limit

    def look(self) -> None:
        """Poll once."""
        with suppress(psutil.Error):
            first = psutil.Process(self.pid)
            started = first.children(recursive=True)
            self._seen.update([first, *started])
            size = first.memory_info().rss + sum(child.memory_full_info().uss for child in started)
            self.peak = max(self.peak, size, high_water(self.pid))
            self.most_programs = max(self.most_programs, len(started))
        if self.exceeded or self.most_programs > self.programs:
            self.kill()

    def kill(self) -> None:
        """Kill the process and everything it was seen to start."""
        for process in list(self._seen):
            with suppress(psutil.Error):
                for one in (*process.children(recursive=True), process):
                    one.kill()

    def _poll(self) -> None:
        while not self._over.wait(self.pause):
            self.look()

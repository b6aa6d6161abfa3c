"""One notebook: a process is started, watched, listened to and, when its time or memory is up, ended with its own."""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from lora_course.classroom.grading.family import end, end_children, taken
from lora_course.classroom.grading.judge import Judge
from lora_course.classroom.grading.kernel import Job, serve
from lora_course.classroom.grading.lessons import Lesson
from lora_course.classroom.grading.wire import LARGEST

BESIDE = 2**29  # bytes that the lab's own libraries take beside what a notebook may
DISK = 2**30  # bytes that stay free, or half of what was
CHILDREN = 8  # programs that a notebook may have running, however it started them
START = 120  # seconds for the process to begin, which elsewhere than on Linux imports everything anew
LOOK = 0.05  # seconds between two looks of the watch
_STARTING = threading.Lock()  # held while a student's process is one that nobody knows yet


class Gone(BaseException):
    """The student's process has ended or talks nonsense. Not an Exception: no check may take it for an answer."""


@dataclass
class Session:
    """A student's process and what it has told; `run` returns when it has ended."""

    job: Job
    lesson: Lesson
    status: str = "ran"  # or: time, memory, disk, programs, left (it ended by itself), garbled
    at_cell: int | None = None
    seconds: float = 0.0
    peak_bytes: int = 0
    began: list[float] = field(default_factory=list)  # when each cell did, and last when all had run
    walls: dict[str, bool] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    judge: Judge = field(init=False)
    _line: Connection = field(init=False)
    _deadline: float = 0.0
    _ended: bool = False  # the student's process, by itself or by the watch
    _seen: set[psutil.Process] = field(default_factory=set)  # whatever the student's process was seen to have started

    def __post_init__(self) -> None:
        self.judge = Judge(self.lesson, self._ask)

    def run(self) -> Session:
        """Start the process and judge what it asks until it is done, or has to be ended."""
        context = _context()
        self._line, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self.job), daemon=True)
        with _STARTING:
            process.start()
            server = _parent(process.pid)
        theirs.close()
        over = threading.Event()
        self._deadline = (begun := time.monotonic()) + START
        watch = threading.Thread(target=self._watch, args=(process, server, over), daemon=True)
        watch.start()
        try:
            self._listen()
        except Gone:
            self.status = "left" if self.status == "ran" else self.status
        finally:
            over.set()
            watch.join()
            end(process.pid, self._seen)
            process.join(10)
            _end_orphans(server)
            self._line.close()
            self.seconds = time.monotonic() - begun
        return self

    def _listen(self) -> None:
        """Until everything has been run, and what the notebook did not ask has been asked."""
        left = [e for e in self.lesson.exercises if not e.open]
        while True:
            message = self._hear()
            if "ran" not in message:
                continue
            self.at_cell = None
            left = [e for e in left if e not in self.judge.verdicts]
            if not left:
                return
            self._send({"ask": left.pop(0).call})

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask for the value of a function, and hear of other things until it comes."""
        self._send(question)
        while True:
            message = self._hear()
            if "value" in message or "raised" in message:
                return message

    def _hear(self) -> dict[str, Any]:
        """The next message, its news taken down and its check answered."""
        message = self._receive()
        if ("cell" in message or "ran" in message) and len(self.began) <= len(self.job.cells):
            self.began.append(time.monotonic())
        try:
            self._note(message)
        except (ValueError, TypeError, KeyError, OverflowError) as error:  # the student's, whatever their shape
            self.status = "garbled"
            raise Gone from error
        if "walls" in message and not self.walls:  # once, before the first cell: later ones are the notebook's own
            self.walls = dict(message["walls"])
            self._deadline = time.monotonic() + self.job.seconds  # from here on it is the notebook's time
        if "check" in message:
            self._send({"verdict": self.judge.hear(message)})
        return message

    def _note(self, message: dict[str, Any]) -> None:
        """Take the news of a message down. Raises: what Python does for news that are of no such shape."""
        if "cell" in message:
            self.at_cell = self._cell(message["cell"])
        if "error" in message and len(self.errors) <= len(self.job.cells):
            error = message["error"]
            words = {name: str(error[name])[:300] for name in ("type", "words")}
            self.errors.append({"cell": self._cell(error["cell"]), **words})
        if "refused" in message and len(self.refused) < 100:
            self.refused.append(str(message["refused"])[:300])

    def _cell(self, number: Any) -> int:
        return range(len(self.job.cells)).index(int(number))

    def _receive(self) -> dict[str, Any]:
        try:
            self._wait()
            message = json.loads(self._line.recv_bytes(LARGEST))
            if not isinstance(message, dict):
                raise ValueError("no object")
            return message
        except (OSError, EOFError) as error:
            raise Gone from error
        except (ValueError, RecursionError) as error:
            self.status = "garbled"
            raise Gone from error

    def _wait(self) -> None:
        """Until something comes; of a process that has ended no longer, as what outlives it may hold its line open."""
        ended = False
        while not self._line.poll(LOOK):
            if ended:
                raise EOFError
            ended = self._ended

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._line.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise Gone from error

    def _watch(self, process: BaseProcess, server: int | None, over: threading.Event) -> None:
        """End the process when its time is up, or it has taken more than it may; and with it whatever it started."""
        least, pid = min(DISK, self._free() // 2), process.pid or 0
        while not over.wait(LOOK):
            if reason := self._reason(pid, least):
                self.status = reason
            if reason or not process.is_alive():
                end(pid, self._seen)
                _end_orphans(server)
                self._ended = True
                return

    def _reason(self, pid: int, least: int) -> str | None:
        """Why the process has to be ended, if it has to."""
        used, children = taken(pid, self._seen)
        self.peak_bytes = max(self.peak_bytes, used)
        reasons = {
            "time": time.monotonic() > self._deadline,
            "programs": children > CHILDREN,
            "memory": used > self.job.memory + BESIDE,
            "disk": self._free() < least,
        }
        return next((name for name, holds in reasons.items() if holds), None)

    def _free(self) -> int:
        return int(psutil.disk_usage(str(self.job.folder.parent)).free)  # the folder itself is the notebook's to remove


def _parent(pid: int) -> int | None:
    with suppress(psutil.Error):
        return psutil.Process(pid).ppid()
    return None


def _end_orphans(server: int | None) -> None:
    """End what outlived its student's process: on Linux it is now a child of the process that those are copies of."""
    if sys.platform == "linux" and server is not None:
        with _STARTING:
            end_children(server, {process.pid for process in multiprocessing.active_children()})


def _context() -> Any:
    """On Linux copies of one process that has imported everything; elsewhere processes that import it themselves."""
    if sys.platform != "linux":  # libraries of macOS do not survive being copied
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lora_course.classroom.grading.ready"])
    return context

"""One notebook: a process is started, watched, listened to and, when its time or memory is up, ended with its own."""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil

from lora_lab.grading.family import end, taken
from lora_lab.grading.judge import Judge
from lora_lab.grading.kernel import Job, serve
from lora_lab.grading.lessons import Lesson
from lora_lab.grading.wire import LARGEST

BESIDE = 2**29  # bytes that the lab's own libraries take beside what a notebook may
DISK = 2**30  # bytes that stay free, or half of what was
CHILDREN = 8  # programs that a notebook may have running, however it started them
START = 120  # seconds for the process to begin, which elsewhere than on Linux imports everything anew
LOOK = 0.05  # seconds between two looks of the watch


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

    def __post_init__(self) -> None:
        self.judge = Judge(self.lesson, self._ask)

    def run(self) -> Session:
        """Start the process and judge what it asks until it is done, or has to be ended."""
        context = _context()
        self._line, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self.job), daemon=True)
        process.start()
        theirs.close()
        over = threading.Event()
        self._deadline = (begun := time.monotonic()) + START
        watch = threading.Thread(target=self._watch, args=(process.pid, over), daemon=True)
        watch.start()
        try:
            self._listen()
        except Gone:
            self.status = "left" if self.status == "ran" else self.status
        finally:
            over.set()
            watch.join()
            end(process.pid)
            process.join(10)
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
            message = json.loads(self._line.recv_bytes(LARGEST))
            if not isinstance(message, dict):
                raise ValueError("no object")
            return message
        except (OSError, EOFError) as error:
            raise Gone from error
        except (ValueError, RecursionError) as error:
            self.status = "garbled"
            raise Gone from error

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._line.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise Gone from error

    def _watch(self, pid: int, over: threading.Event) -> None:
        """End the process when its time is up, or it has taken more memory or started more than it may."""
        least = min(DISK, psutil.disk_usage(str(self.job.folder)).free // 2)
        while not over.wait(LOOK):
            used, children = taken(pid)
            self.peak_bytes = max(self.peak_bytes, used)
            reasons = {
                "time": time.monotonic() > self._deadline,
                "programs": children > CHILDREN,
                "memory": used > self.job.memory + BESIDE,
                "disk": psutil.disk_usage(str(self.job.folder)).free < least,
            }
            if reason := next((name for name, holds in reasons.items() if holds), None):
                self.status = reason
                end(pid)
                return


def _context() -> Any:
    """On Linux copies of one process that has imported everything; elsewhere processes that import it themselves."""
    if sys.platform != "linux":  # libraries of macOS do not survive being copied
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lora_lab.grading.ready"])
    return context

"""The student's process: IPython's shell, the part of a notebook's kernel that runs cells, without its sockets.

The lab's checks are replaced before the first cell: they send the answer to the judge and show what the judge says. A
function crosses as a number, and the judge asks here for its values. What the notebook prints goes nowhere.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lora_course.classroom.grading import guard
from lora_course.classroom.grading.wire import LARGEST, decode, encode
from lora_lab.errors import BadValue

MOST_FILES = 4096  # numbers of open files that are closed at the start
REST = 2**16  # bytes of a message that are no answer
REPORTED = 20  # refusals that are sent; more say nothing new


@dataclass(frozen=True)
class Job:
    """What a student's process is to run, and within which limits."""

    cells: Sequence[str]
    folder: Path  # the throw-away copy
    private: Path  # what it must not look into: everybody's notebooks
    environment: dict[str, str]
    memory: int
    seconds: float
    processes: int


@dataclass
class Line:
    """The line to the judge: one JSON object a message."""

    connection: Connection
    lock: threading.RLock = field(default_factory=threading.RLock)

    def send(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        return json.loads(self.connection.recv_bytes())


def serve(connection: Connection, job: Job) -> None:
    """Run a job and end the process. Called in a fresh process."""
    line = Line(connection)
    _settle(job, connection.fileno())
    refusals: list[str] = []

    def report(what: str) -> None:
        if what not in refusals and len(refusals) < REPORTED:
            refusals.append(what)
            line.send({"refused": what})

    shell = _shell()
    _replace_checks(line)
    guard.limit(memory=job.memory, seconds=job.seconds, processes=job.processes)
    line.send({"walls": guard.enclose(job.folder, job.private, report)})
    for number, source in enumerate(job.cells):
        line.send({"cell": number})
        _run(shell, source, number, line)
    _answer_what_was_not_asked(shell, line)
    os._exit(0)  # threads and exit handlers of the notebook have no say


def _settle(job: Job, line: int) -> None:
    """A session, a folder and an environment of its own; nobody to read from or print to, and no line but ours."""
    if hasattr(os, "setsid"):
        os.setsid()
        os.closerange(3, line)  # lines to the process that this is a copy of
        os.closerange(line + 1, MOST_FILES)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(job.environment)
    tempfile.tempdir = None
    os.chdir(job.folder)
    sys.path.insert(0, "")


def _shell() -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=settings)
    shell.showtraceback = shell.showsyntaxerror = lambda *a, **k: None  # nobody reads it, and laying it out is slow
    return shell


def _run(shell: Any, source: str, number: int, line: Line) -> None:
    done = shell.run_cell(source, store_history=False)
    if error := done.error_before_exec or done.error_in_exec:
        line.send({"error": {"cell": number, "type": type(error).__name__, "words": str(error)[:300]}})


def _replace_checks(line: Line) -> None:
    """Put in the place of each check, wherever it may be imported from, one that asks the judge."""
    from lora_course import checks

    for name in checks.__all__:
        getattr(checks, name)  # imports its file: one that came later would bring the check itself
    places = [module for name, module in sys.modules.items() if f"{name}.".startswith(f"{checks.__name__}.")]
    for module in places:
        for name in [name for name in vars(module) if name.startswith("check_")]:
            setattr(module, name, _asking(name, line))


def _asking(name: str, line: Line) -> Callable[..., Any]:
    """A check that is judged elsewhere."""
    from lora_course.checks.verdict import Verdict

    def check(*arguments: Any, **by_name: Any) -> Verdict:
        functions: list[Callable[..., Any]] = []
        sent = _sent([*arguments, *by_name.values()], functions)
        in_order, named = sent[: len(arguments)], zip(by_name, sent[len(arguments) :], strict=True)
        with line.lock:
            line.send({"check": name, "arguments": _tuple(in_order), "by_name": {"": "dict", "of": list(named)}})
            while "verdict" not in (answer := line.receive()):
                line.send(_value(functions[answer["call"]], answer))
        return Verdict(*answer["verdict"])

    check.__name__ = name
    return check


def _sent(values: Iterable[Any], functions: list[Callable[..., Any]]) -> list[Any]:
    """Answers of one message as they cross; one that cannot, or that has no room in it, as something of that name."""
    sent, room = [], LARGEST - REST
    for value in values:
        crossing, size = _encoded(value, functions)
        if size > room:
            crossing, size = {"": "other", "type": "an answer that is too large"}, 0
        sent.append(crossing)
        room -= size
    return sent


def _encoded(value: Any, functions: list[Callable[..., Any]]) -> tuple[Any, int]:
    """An answer as it crosses, and its size; a list that holds itself, for one, cannot."""
    try:
        crossing = encode(value, functions)
        return crossing, len(json.dumps(crossing))
    except (RecursionError, MemoryError, ValueError, TypeError, OverflowError):
        return {"": "other", "type": "an answer that cannot be sent"}, 0


def _tuple(sent: list[Any]) -> dict[str, Any]:
    return {"": "tuple", "of": sent}


def _value(function: Callable[..., Any], asked: dict[str, Any]) -> dict[str, Any]:
    """What a function of the notebook makes of the judge's arguments, or what it raises."""
    try:
        arguments = decode(asked["arguments"], _no_function)
        value = function(*arguments)
    except BaseException as error:  # also sys.exit(): the judge waits for an answer
        return {"raised": type(error).__name__, "words": str(error)[:300]}
    sent = _sent([value, *arguments], [])
    return {"value": sent[0], "after": _tuple(sent[1:])}


def _no_function(place: int) -> Any:
    raise BadValue("a function cannot be given to a function")


def _answer_what_was_not_asked(shell: Any, line: Line) -> None:
    """The judge's own questions: checks of the lesson that the notebook no longer calls, on the names it has."""
    from lora_course import checks

    line.send({"ran": True})
    while call := line.receive().get("ask"):
        names = {**shell.user_ns, **vars(checks), "checks": checks}
        try:
            eval(call, names)
        except Exception as error:  # the name is not there
            line.send({"unanswered": call, "words": str(error)[:300]})
        line.send({"ran": True})

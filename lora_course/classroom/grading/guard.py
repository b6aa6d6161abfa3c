"""What a student's process may not do. A guard against accidents and mischief, not a sandbox: Python code that means to
get past an audit hook can (by ctypes, for one). Linux adds what cannot be got past, see `landlock`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from os.path import realpath
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import lora_course
import lora_lab
from lora_course.classroom.grading import landlock
from lora_lab.training.assets import shipped

FILE_BYTES = 2**30  # of one file
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {  # events that change files: how many of their arguments are paths, and where descriptors of folders stand
    "os.rename": (2, (2, 3)), "os.remove": (1, (1,)), "os.mkdir": (1, (2,)), "os.rmdir": (1, (1,)),
    "os.symlink": (2, (2, 2)), "os.link": (2, (2, 3)), "os.chmod": (1, (2,)), "os.chown": (1, (3,)),
    "os.truncate": (1, ()), "os.utime": (1, (3,)), "os.setxattr": (1, ()), "os.removexattr": (1, ()),
}  # fmt: skip
NETWORK = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
           "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")  # fmt: skip
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
            "os.startfile", "os.startfile/2", "pty.spawn", "_winapi.CreateProcess")  # fmt: skip
UNHEARD = (("_posixsubprocess", "fork_exec"), ("subprocess", "_fork_exec"))  # start programs without any event
READS = ("os.listdir", "os.scandir")
NO_FILE = ("", ":memory:")  # names of a database
NOWHERE = (os.path.realpath(os.devnull), os.devnull, "\\\\.\\nul")


def limit(*, memory: int, seconds: float, processes: int) -> None:
    """Limits that the system holds this process to: bytes beside those it has, seconds of computing, processes."""
    if sys.platform == "win32":
        return  # there the grader's watch alone looks at memory and time
    import resource

    def set_to(what: int, value: int) -> None:
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))

    computing = int(seconds * (os.cpu_count() or 1)) + 5
    set_to(resource.RLIMIT_CPU, computing)
    set_to(resource.RLIMIT_FSIZE, FILE_BYTES)
    set_to(resource.RLIMIT_CORE, 0)
    if hasattr(resource, "RLIMIT_NPROC"):
        set_to(resource.RLIMIT_NPROC, processes)
    if sys.platform == "linux":  # data, not addresses: libraries and reserved room are no use of memory
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        here = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))
        set_to(resource.RLIMIT_DATA, here * 1024 + memory)


def enclose(folder: Path, private: Path, report: Callable[[str], None]) -> dict[str, bool]:
    """From now on refuse, and report, what leaves `folder` (the only place to write in) or looks into `private`.

    Returns which walls are Linux's own. Cannot be undone.
    """
    walls = {"network": landlock.without_network(), "files": landlock.only_write_in(folder)}
    hook = _Guard(folder, private, report)
    sys.addaudithook(hook)
    for module, name in UNHEARD:
        if module in sys.modules:
            setattr(sys.modules[module], name, lambda *arguments, **by_name: hook.started("fork_exec", arguments))
    return walls


class _Guard:
    """The audit hook: hears of what Python is about to do, and refuses some of it by raising PermissionError."""

    def __init__(self, folder: Path, private: Path, report: Callable[[str], None]) -> None:
        self.folder, self.private, self.report, self.own = realpath(folder), realpath(private), report, os.getpid()
        lab = (*lora_lab.__path__, *lora_course.__path__, shipped("data"), os.environ.get("LORA_LAB_HOME", sys.prefix))
        readable = [realpath(place) for place in (str(folder), sys.prefix, sys.base_prefix, *map(str, lab))]
        self.readable = [place for place in readable if not _inside(self.private, place)]
        self.rules = dict.fromkeys(CHANGES, self.changed) | dict.fromkeys(NETWORK, self.reached)
        self.rules |= dict.fromkeys(PROGRAMS, self.started) | dict.fromkeys(READS, self.looked)
        self.rules |= {"open": self.opened, "sqlite3.connect": self.connected}
        self.rules |= dict.fromkeys(("os.kill", "os.killpg"), self.signalled)
        self.rules |= dict.fromkeys(("resource.setrlimit", "resource.prlimit"), self.loosened)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if rule := self.rules.get(event):
            rule(event, arguments)

    def refuse(self, what: str) -> None:
        self.report(what)
        raise PermissionError(f"not while the notebook is graded: {what}")

    def opened(self, event: str, arguments: tuple[Any, ...]) -> None:
        path, mode, flags = arguments
        if path is None or isinstance(path, int):
            return
        where = _place(path)
        by_mode = isinstance(mode, str) and any(letter in mode for letter in "wax+")
        if (by_mode or int(flags or 0) & OPEN_TO_WRITE) and not self._own(where):
            self.refuse(f"write {where}")
        if self._others(where):
            self.refuse(f"read {where}")

    def connected(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A database is opened by C, which has no audit hook; its name may be a path or file:PATH?more."""
        name = os.fsdecode(arguments[0])
        for path in (name, unquote(urlsplit(name).path) if name.startswith("file:") else name):
            if path not in NO_FILE and not self._own(where := _place(path)):
                self.refuse(f"write {where}")

    def changed(self, event: str, arguments: tuple[Any, ...]) -> None:
        count, descriptors = CHANGES[event]
        for number in range(count):
            at = descriptors[number] if number < len(descriptors) else len(arguments)
            where = "" if isinstance(arguments[number], int) else _place(arguments[number], *arguments[at : at + 1])
            if where and not self._own(where):
                self.refuse(f"change {where}")

    def looked(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = arguments[0] if arguments else None
        if path is None or isinstance(path, int):
            return
        if self._others(where := _place(path)):
            self.refuse(f"look into {where}")

    def reached(self, event: str, arguments: tuple[Any, ...]) -> None:
        address = arguments[-1] if event == "socket.connect" else arguments[0]
        here = isinstance(address, tuple) and address[:1] in (("127.0.0.1",), ("::1",))
        if not (sys.platform == "win32" and here):  # there a pair of sockets, as asyncio wants, is made this way
            self.refuse(f"network: {event.removeprefix('socket.')}")

    def started(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.refuse(f"start a program: {event} {arguments[0] if arguments else ''!r:.80}")

    def signalled(self, event: str, arguments: tuple[Any, ...]) -> None:
        if arguments[0] != self.own:
            self.refuse("end another program")

    def loosened(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.refuse("change the limits of memory and time")

    def _others(self, path: str) -> bool:
        """Whether a path is other students' work: in the graded folder, though neither the copy nor the lab itself."""
        return _inside(path, self.private) and not any(_inside(path, place) for place in self.readable)

    def _own(self, path: str) -> bool:
        return _inside(path, self.folder) or path in NOWHERE


def _place(path: Any, descriptor: int = -1) -> str:
    """Where a path leads, every link followed; a relative one from the folder that a descriptor stands for."""
    name = os.fsdecode(os.fspath(path))
    if descriptor >= 0 and sys.platform == "linux":
        name = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), name)
    return realpath(name)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)

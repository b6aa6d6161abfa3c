"""The process that runs a student's notebook: an IPython kernel with limits that answers in JSON.

    python -m lora_course.classroom.kernel CONNECTION_FILE MEMORY_BYTES CPU_SECONDS

`pack` and `unpack` are the two ends of the wire. A function stays in its process: its index in `FUNCTIONS` is sent,
and the grader evaluates it with `call`. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

import numpy as np

FUNCTIONS: list[Callable[..., Any]] = []
FILE_BYTES = 2**30  # of one file
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate",
           "shutil.rmtree"}  # fmt: skip
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "pty.",
             "os.kill", "socket.connect", "socket.bind", "socket.send", "socket.get")  # fmt: skip
REFUSED = "not while the notebook is graded: "


def pack(value: Any) -> Any:
    """A value as JSON; what JSON lacks becomes a dict with its kind."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Mapping):
        return {"kind": "dict", "of": [[pack(key), pack(one)] for key, one in value.items()]}
    if isinstance(value, (Sequence, Set)):
        return {"kind": "tuple" if isinstance(value, tuple) else "list", "of": [pack(one) for one in value]}
    if hasattr(value, "detach"):
        return {"kind": "tensor", "of": value.detach().cpu().tolist(), "dtype": str(value.dtype)}
    if hasattr(value, "columns"):
        return {"kind": "frame", "of": pack(value.to_dict("list"))}
    if hasattr(value, "tolist"):  # numpy's and pandas' own types
        plain = pack(value.tolist())
        return {**plain, "kind": "array"} if isinstance(value, np.ndarray) and value.ndim else plain
    if callable(value):
        FUNCTIONS.append(value)
        return {"kind": "function", "of": len(FUNCTIONS) - 1}
    return {"kind": "..." if value is ... else "other", "of": type(value).__name__}


def unpack(value: Any, function: Callable[[int], Any] | None = None) -> Any:
    """The inverse of `pack`; `function(place)` stands for a function of the other process.

    Raises: what Python, numpy or torch raise for JSON that `pack` doesn't make.
    """
    if not isinstance(value, dict):
        return value
    kind, of = value["kind"], value["of"]
    if kind == "dict":
        return {unpack(key, function): unpack(one, function) for key, one in of}
    if kind in ("list", "tuple", "array"):
        every = [unpack(one, function) for one in of]
        return np.array(every) if kind == "array" else tuple(every) if kind == "tuple" else every
    if kind == "tensor":
        import torch

        return torch.tensor(of, dtype=getattr(torch, value["dtype"].removeprefix("torch.")))
    if kind == "frame":
        import pandas as pd

        return pd.DataFrame(unpack(of))
    if kind == "function" and function:
        return function(int(of))
    return ... if kind == "..." else type(str(of)[:60], (), {})()  # so that a check can say "not Foo"


def answer(*arguments: Any, **by_name: Any) -> str:
    """The arguments of a check as JSON in hexadecimal digits, which IPython prints unchanged."""
    return json.dumps(pack((arguments, by_name))).encode().hex()


def call(place: int, arguments: str) -> str:
    """What a function of the notebook returns for JSON arguments, or raises; encoded like `answer`."""
    try:
        told = json.dumps({"value": pack(FUNCTIONS[place](*unpack(json.loads(arguments))))})
    except BaseException as error:  # also SystemExit: the grader waits for an answer
        told = json.dumps({"raised": type(error).__name__, "words": str(error)[:300]})
    return told.encode().hex()


def prepare(folder: str) -> None:
    """Prepare for the first cell: disable checks, and add an audit hook that refuses what no exercise needs.

    It refuses writing outside `folder`, starting programs, and the network. That stops accidents only: ctypes gets
    around it, and C code such as `torch.save` raises no audit event.
    """
    from lora_course import checks

    for name in checks.__all__:
        setattr(checks, name, lambda *arguments, **by_name: None)
    allowed = (os.path.realpath(folder) + os.sep, os.path.realpath(os.devnull) + os.sep)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        paths: Sequence[Any] = arguments if event in CHANGES else ()
        if event == "open":
            path, mode, flags = arguments
            paths = [path] if set(mode or "") & set("wax+") or int(flags or 0) & WRITES else []
        for path in paths:
            if isinstance(path, (str, bytes, os.PathLike)):
                where = os.path.realpath(os.fsdecode(path))
                if not f"{where}{os.sep}".startswith(allowed):
                    raise PermissionError(f"{REFUSED}write {where}")
        if event.startswith(FORBIDDEN) and not (os.name == "nt" and "127.0.0.1" in str(arguments)):  # asyncio needs it
            raise PermissionError(f"{REFUSED}{event} {str(arguments[:2])[:80]}")

    sys.addaudithook(hook)


def main(connection_file: str, memory: int, seconds: int) -> None:
    """Limit this process and become a kernel."""
    if os.name != "nt":
        import resource

        limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_CORE: 0}
        if sys.platform == "linux":  # data, not address space: torch reserves much that it never uses
            limits[resource.RLIMIT_DATA] = memory
        for what, most in limits.items():
            with suppress(ValueError):  # a lower limit is already set
                resource.setrlimit(what, (most, most))
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(["-f", connection_file, "--HistoryManager.enabled=False"])


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

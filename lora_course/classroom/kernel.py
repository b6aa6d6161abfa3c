"""The process that runs a student's notebook: an IPython kernel that has resource limits and replies in JSON.

    python -m lora_course.classroom.kernel CONNECTION_FILE MEMORY_BYTES

`pack` and `unpack` convert values for the connection. A function stays in its process: only its index in `FUNCTIONS`
is sent, and the grader evaluates it with `call`. Nothing is unpickled.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from lora_lab.lazy import pd, torch

FUNCTIONS: list[Callable[..., Any]] = []
CHECKS: dict[str, Callable[..., Any]] = {}  # the lab's own, even if the notebook redefines them
FILE_BYTES = 2**30  # per file
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate",
           "shutil.rmtree"}  # fmt: skip
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "pty.",
             "os.kill", "socket.connect", "socket.bind", "socket.send", "socket.get")  # fmt: skip
REFUSED = "not allowed while the notebook is graded: "


def pack(value: Any) -> Any:
    """Convert a value to JSON; types that JSON lacks become a dict with their kind."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (Real, Decimal)):
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, Mapping):
        return {"kind": "dict", "of": [[pack(key), pack(item)] for key, item in value.items()]}
    if isinstance(value, (Sequence, Set)):
        return {"kind": "tuple" if isinstance(value, tuple) else "list", "of": [pack(item) for item in value]}
    if hasattr(value, "detach"):
        return {"kind": "tensor", "of": value.tolist(), "dtype": str(value.dtype), "grad": value.requires_grad}
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
    """Invert `pack`; `function(index)` returns a proxy for a function in the other process."""
    if not isinstance(value, dict):
        return value
    kind, content = value["kind"], value["of"]
    if kind == "dict":
        return {unpack(key, function): unpack(item, function) for key, item in content}
    if kind in ("list", "tuple", "array"):
        items = [unpack(item, function) for item in content]
        return np.array(items) if kind == "array" else tuple(items) if kind == "tuple" else items
    if kind == "tensor":
        dtype = getattr(torch, value["dtype"].removeprefix("torch."))
        return torch.tensor(content, dtype=dtype, requires_grad=value["grad"] is True)
    if kind == "frame":
        return pd.DataFrame(unpack(content))
    if kind == "function" and function:
        return function(int(content))
    return ... if kind == "..." else type(str(content)[:60], (), {})()  # so that a check can say "not Foo"


def answer(*arguments: Any, **by_name: Any) -> str:
    """Encode a check's arguments as JSON in hexadecimal digits, which IPython prints unchanged."""
    return json.dumps(pack((arguments, by_name))).encode().hex()


def judge(name: str, *arguments: Any, **by_name: Any) -> str:
    """Run a check here, because its arguments can't be sent; encode its verdict as `answer` does."""
    from lora_course.checks.verdict import attempt

    verdict = attempt(lambda: CHECKS[name](*arguments, **by_name))
    return json.dumps([verdict.passed, verdict.words]).encode().hex()


def call(index: int, arguments: str) -> str:
    """Call a function of the notebook with JSON arguments; encode its value or exception as `answer` does."""
    try:
        reply = json.dumps({"value": pack(FUNCTIONS[index](*unpack(json.loads(arguments))))})
    except BaseException as error:  # including SystemExit: the grader waits for a reply
        reply = json.dumps({"raised": type(error).__name__, "words": str(error)[:300]})
    return reply.encode().hex()


def prepare(folder: str) -> None:
    """Prepare for the first cell: disable checks, and add an audit hook that blocks what no exercise needs.

    `exit()` becomes an error in its cell, because IPython's `exit` ends the kernel only after the next cells have run.
    The hook blocks writes outside `folder`, new processes, and network access. It guards only against accidents: ctypes
    bypasses it, and C code such as `torch.save` raises no audit event.
    """
    from IPython import get_ipython

    from lora_course import checks

    def restore() -> None:  # without these streams, the kernel doesn't reply
        sys.stdout, sys.stderr = sys.stdout or sys.__stdout__, sys.stderr or sys.__stderr__

    for name in checks.__all__:
        CHECKS[name] = getattr(checks, name)
        setattr(checks, name, lambda *arguments, **by_name: None)
    shell: Any = get_ipython()
    shell.user_ns |= {"exit": sys.exit, "quit": sys.exit}
    shell.events.register("post_execute", restore)
    allowed = (os.path.realpath(folder) + os.sep, os.path.realpath(os.devnull) + os.sep)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        paths: Sequence[Any] = arguments if event in CHANGES else ()
        if event == "open":
            path, mode, flags = arguments
            paths = [path] if set(mode or "") & set("wax+") or int(flags or 0) & WRITES else []
        for path in paths:
            if isinstance(path, (str, bytes, os.PathLike)):
                target = os.path.realpath(os.fsdecode(path))
                if not f"{target}{os.sep}".startswith(allowed):
                    raise PermissionError(f"{REFUSED}write {target}")
        if event.startswith(FORBIDDEN) and not (os.name == "nt" and "127.0.0.1" in str(arguments)):  # for asyncio
            raise PermissionError(f"{REFUSED}{event} {str(arguments[:2])[:80]}")

    sys.addaudithook(hook)


def main(connection_file: str, memory: int) -> None:
    """Set the limits of this process and run a kernel in it."""
    if os.name != "nt":
        import resource

        limits = {resource.RLIMIT_FSIZE: FILE_BYTES, resource.RLIMIT_CORE: 0}
        if sys.platform == "linux":  # limit data, not address space: torch reserves far more than it uses
            limits[resource.RLIMIT_DATA] = memory
        for kind, limit in limits.items():
            with suppress(ValueError):  # a lower limit is already set
                resource.setrlimit(kind, (limit, limit))
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(["-f", connection_file, "--HistoryManager.enabled=False"])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

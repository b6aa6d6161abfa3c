"""Report the memory of this machine or container, find free ports, build Jupyter commands, and silence transformers.

The installer uses this module before any package is installed, so it imports only the standard library.
"""

import math
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from lora_lab.errors import BadValue

CGROUPS = Path("/sys/fs/cgroup")
BUILDING = threading.RLock()  # held while transformers builds a model, which changes the state of the whole process
_TURN = threading.Lock()
_hiding: list[AbstractContextManager[None]] = []  # one entry for each open `quiet` block
PORTS = 50  # number of ports to try, starting with the requested one


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bars and warnings, which would clutter lessons. Threads may use this concurrently."""
    with _TURN:  # the state belongs to the process: the first block hides output, and the last block restores it
        hidden = _hiding[0] if _hiding else _hidden()
        if not _hiding:
            hidden.__enter__()
        _hiding.append(hidden)
    try:
        yield
    finally:
        with _TURN:
            _hiding.pop()
            if not _hiding:
                hidden.__exit__(None, None, None)


@contextmanager
def _hidden() -> Iterator[None]:
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def memory() -> tuple[int | None, int | None]:
    """Return the total and the free memory in bytes, or None for an unknown value."""
    limit, used = container()
    with suppress(ImportError):
        import psutil

        machine = psutil.virtual_memory()
        return int(min(machine.total, limit)), int(max(0, min(machine.available, limit - used)))
    with suppress(ValueError, OSError, AttributeError):  # psutil isn't installed yet; Windows has no sysconf
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
    return None, None


def container() -> tuple[float, int]:
    """Return how many bytes this container may use (infinity if there is no limit), and how many its programs use."""
    second = CGROUPS, "memory.max", ("anon", "shmem")  # version 2 of control groups
    first = CGROUPS / "memory", "memory.limit_in_bytes", ("total_rss", "total_shmem")
    for folder, limit, kinds in (second, first):
        with suppress(OSError, ValueError, KeyError):
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("utf-8").splitlines())
            return int((folder / limit).read_text("utf-8")), sum(int(stat[kind]) for kind in kinds)
    return math.inf, 0


def free_port(first: int) -> int:
    """Return the first free port, counting up from `first` (0: any port). Raises: BadValue if PORTS ports are taken."""
    for port in [0] if first == 0 else range(first, min(first + PORTS, 65536)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise BadValue(f"ports {first} to {first + PORTS - 1} are all in use; choose another with --port")


def jupyter_app(module: str) -> list[str]:
    """Return the command for a Jupyter application, without jsonschema's IRI check, which takes a second to import."""
    code = f"import sys; sys.modules['rfc3987_syntax'] = None; from {module} import main; main()"
    return [sys.executable, "-P", "-c", code]  # -P: otherwise, a user's file random.py would hide a library

"""The memory of this machine, or of the container that Python runs in. It imports only the standard library."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def memory() -> tuple[int | None, int | None]:
    """Return total and free bytes; None if unknown."""
    limit, used = container()
    with suppress(ImportError):
        import psutil

        machine = psutil.virtual_memory()
        if limit is None or limit > machine.total:
            return machine.total, machine.available
        return limit, max(0, min(machine.available, limit - used))
    with suppress(ValueError, OSError, AttributeError):  # before anything is installed; Windows has no sysconf
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return None, None


def container() -> tuple[int | None, int]:
    """Return the bytes that this container may use (None: no limit), and the bytes in use by its programs."""
    second = CGROUPS, "memory.max", ("anon", "shmem")  # version 2 of control groups
    first = CGROUPS / "memory", "memory.limit_in_bytes", ("total_rss", "total_shmem")
    for folder, limit, kinds in (second, first):
        with suppress(OSError, ValueError, KeyError):
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("utf-8").splitlines())
            return int((folder / limit).read_text("utf-8")), sum(int(stat[kind]) for kind in kinds)
    return None, 0

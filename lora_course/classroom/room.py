"""How much memory a lesson takes, how much is free here, and what to do if that is too little.

Lessons are made for 8 GB machines with a browser open. `KERNEL` is what that leaves for one lesson's kernel; a test
holds every recorded peak to it, and `pytest -m memory` runs every lesson under it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

import psutil

from lora_course.classroom import preflight
from lora_lab.files import read_json
from lora_lab.training.assets import shipped

MACHINE = 8 * 10**9
"""Bytes of an "8 GB" machine: 8.6e9 built in, less what firmware and graphics keep."""
SYSTEM = 3 * 10**9
"""Bytes of the system and its services: assumed, on the high side, for Windows 11 after start-up."""
BROWSER = 15 * 10**8
"""Bytes of the browser with a lesson open and of the Jupyter server; docs/install.md has what was measured."""
KERNEL = MACHINE - SYSTEM - BROWSER
"""Bytes left for one lesson's kernel and everything it starts."""


class Peak(NamedTuple):
    """The most memory that a lesson's kernel used, with when and where."""

    bytes: int
    date: str
    hardware: str


def number(lesson: str) -> str:
    """A lesson's number: `05` of `05_as_good_as_full`."""
    return re.sub(r"^((old_)?\d*).*", r"\1", lesson)


def peaks() -> dict[str, Peak]:
    """The largest measurement of each lesson, by its name."""
    graded, found = read_json(shipped("data/results/lesson_times.json")), {}
    for name, records in read_json(shipped("data/results/lesson_memory.json")).items():
        every = [Peak(one["peak_bytes"], one["date"], one["hardware"]) for one in records.values()]
        if one := graded.get(name):  # at full length; the grader runs without Jupyter
            every.append(Peak(one["peak_mib"] * 2**20, one["date"], one["hardware"]))
        found[name] = max(every)
    return found


def room_for(lesson: str) -> str:
    """A lesson's memory (by its name or number) beside this machine's, as text."""
    known, (total, free) = peaks(), preflight.memory()
    needed = next((known[name] for name in sorted(known) if name.startswith(lesson)), None)
    if needed is None:
        return "memory: this lesson has not been measured yet"
    words = f"memory: at most {_gb(needed.bytes)} when measured ({needed.date}, {needed.hardware})"
    if total is None or free is None:
        return words
    free += psutil.Process().memory_info().rss  # this kernel's own memory is part of the peak
    words += f"\nhere: {_gb(total)}, of which you can have {_gb(free)}: "
    if needed.bytes <= free:
        return f"{words}enough"
    others = _other_kernels()
    close = f"; {len(others)} other notebooks hold {_gb(sum(others))} (File > Close and Shut Down Notebook)"
    return f"{words}too little; close browser tabs and other programs, and run this again{close if others else ''}"


def _other_kernels() -> list[int]:
    """Bytes that each of this user's other notebook kernels would free."""
    own, found = psutil.Process(), []
    for process in psutil.process_iter(["cmdline", "username"]):
        with suppress(psutil.Error):
            kernel = any("ipykernel" in word for word in process.info["cmdline"] or ())
            mine = process.info["username"] == own.username() and process.pid not in (own.pid, own.ppid())
            size = process.memory_full_info().uss if kernel and mine else 0
            found += [size] if size > 50 * 10**6 else []  # smaller ones have loaded nothing
    return found


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

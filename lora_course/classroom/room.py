"""What memory a lesson takes, what is free on this machine, and what to do where that is too little.

The lessons are made for machines of 8 GB on which a browser is open. What is left of those for a lesson's kernel is
`KERNEL`; a test holds every recorded peak to it, and `pytest -m memory` runs every lesson under it.
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
"""Bytes of a machine "of 8 GB": the 8.6e9 that are built in, less what firmware and graphics keep."""
SYSTEM = 3 * 10**9
"""Bytes that the system and its services take: an assumption, on the high side, of Windows 11 after it has started."""
BROWSER = 15 * 10**8
"""Bytes of the browser with a lesson open and of the Jupyter server; docs/small_machines.md has what was measured."""
KERNEL = MACHINE - SYSTEM - BROWSER
"""Bytes that are left for one lesson's kernel with whatever it starts."""
LENGTHS = {"full": "as long as yours", "wide": "as many rows and runs at once as yours", "fast": "shortened, FAST=1"}


class Peak(NamedTuple):
    """The most that a lesson's kernel had resident, and of which run that is told."""

    bytes: int
    how: str
    date: str
    hardware: str


def number(lesson: str) -> str:
    """What a lesson is called by: `05` of `05_as_good_as_full`, `old_11` of `old_11_qlora`."""
    return re.sub(r"^((old_)?\d*).*", r"\1", lesson)


def peaks() -> dict[str, Peak]:
    """The largest measurement of each lesson, by its name."""
    graded, found = read_json(shipped("data/results/lesson_times.json")), {}
    for name, records in read_json(shipped("data/results/lesson_memory.json")).items():
        every = [(one["peak_bytes"], LENGTHS[length], one) for length, one in records.items()]
        if name in graded:  # as long as a student's; the grader is without Jupyter's part
            every.append((graded[name]["peak_mib"] * 2**20, LENGTHS["full"], graded[name]))
        size, how, record = max(every, key=lambda one: one[0])
        found[name] = Peak(size, how, record["date"], record["hardware"])
    return found


def room_for(lesson: str) -> str:
    """The memory of a lesson (its name, or how that begins) beside this machine's, in words."""
    known, (total, free) = peaks(), preflight.memory()
    needed = next((known[name] for name in sorted(known) if name.startswith(lesson)), None)
    if needed is None:
        return "memory: this lesson has not been measured yet"
    words = f"memory: at most {_gb(needed.bytes)} when measured ({needed.how}; {needed.date}, {needed.hardware})"
    if total is None or free is None:
        return words
    free += psutil.Process().memory_info().rss  # what this kernel has by now is part of the peak
    words += f"\nhere: {_gb(total)}, of which you can have {_gb(free)}: "
    if needed.bytes <= free:
        return f"{words}enough"
    others = _other_kernels()
    close = f"; {len(others)} other notebooks hold {_gb(sum(others))} (File > Close and Shut Down Notebook)"
    return f"{words}too little; close browser tabs and other programs, and run this again{close if others else ''}"


def _other_kernels() -> list[int]:
    """Bytes that each other notebook's kernel of this user would give back."""
    own, found = psutil.Process(), []
    for process in psutil.process_iter(["cmdline", "username"]):
        with suppress(psutil.Error):
            kernel = any("ipykernel" in word for word in process.info["cmdline"] or ())
            mine = process.info["username"] == own.username() and process.pid not in (own.pid, own.ppid())
            size = process.memory_full_info().uss if kernel and mine else 0
            found += [size] if size > 50 * 10**6 else []  # what has less has loaded nothing
    return found


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

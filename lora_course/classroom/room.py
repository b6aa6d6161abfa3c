"""What memory a lesson takes, what is free on this machine, and what to do where that is too little.

The lessons are made for machines of 8 GB on which a browser is open. What is left of those for a lesson's kernel is
`KERNEL`; a test holds every recorded peak to it, and `pytest -m memory` runs every lesson under it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from lora_course.classroom import preflight
from lora_lab.errors import NotFound
from lora_lab.files import read_json
from lora_lab.training.assets import shipped
from lora_lab.training.watching import headless

MACHINE = 8 * 10**9
"""Bytes of a machine "of 8 GB": the 8.6e9 that are built in, less what firmware and graphics keep."""
SYSTEM = 3 * 10**9
"""Bytes that the system and its services take: an assumption, on the high side, of Windows 11 after it has started."""
BROWSER = 15 * 10**8
"""Bytes of the browser with a lesson open and of the Jupyter server; docs/small_machines.md has what was measured."""
KERNEL = MACHINE - SYSTEM - BROWSER
"""Bytes that are left for one lesson's kernel with whatever it starts."""
LENGTHS = {
    "full": "as long as yours",
    "wide": "as many rows and runs at once as yours, with a few steps",
    "fast": "shortened, FAST=1",
}
STUB = 50 * 10**6  # bytes: what has less is no kernel that has loaded anything


@dataclass(frozen=True)
class Peak:
    """The most that a lesson's kernel had resident, and of which run that is told."""

    bytes: int
    how: str
    date: str
    hardware: str


def number(lesson: str) -> str:
    """What a lesson is called by: `05` of `05_as_good_as_full`, `old_09` of `old_09_merge_and_swap`."""
    return re.sub(r"^((old_)?\d*).*", r"\1", lesson)


def lessons() -> list[str]:
    """The lessons that were measured: `old_09_merge_and_swap`."""
    return sorted(_records("lesson_memory"))


def peak(lesson: str) -> Peak:
    """The largest of a lesson's measurements. `lesson`: its name or how that begins, `04`.

    Raises: NotFound, naming those there are.
    """
    records = _records("lesson_memory")
    name = next((name for name in sorted(records) if name.startswith(lesson)), None)
    if name is None:
        raise NotFound(f"no lesson is called '{lesson}'; measured were {', '.join(sorted(records))}")
    found = [(one["peak_bytes"], LENGTHS[length], one) for length, one in records[name].items()]
    if graded := _records("lesson_times").get(name):  # as long as a student's; the grader is without Jupyter's part
        found.append((graded["peak_mib"] * 2**20, LENGTHS["full"], graded))
    size, how, record = max(found, key=lambda one: one[0])
    return Peak(size, how, record["date"], record["hardware"])


def room_for(lesson: str) -> str:
    """A lesson's memory beside this machine's, in words, for its first cell."""
    try:
        needed, (total, free) = peak(lesson), preflight.memory()
    except NotFound:
        return "memory: this lesson has not been measured yet"
    words = f"memory: at most {_gb(needed.bytes)} when measured ({needed.how}; {needed.date}, {needed.hardware})"
    if total is None or free is None:
        return words
    free += psutil.Process().memory_info().rss  # what this kernel has by now is part of the peak
    enough = needed.bytes <= free
    lines = [words, f"here: {_gb(total)}, of which {_gb(free)} can be had: {'enough' if enough else 'too little'}"]
    lines += [] if headless() else _others(list(_other_kernels()))
    if not enough:
        most = sorted(((peak(name).bytes, name) for name in lessons()), reverse=True)[:3]
        largest = ", ".join(f"{number(name)} ({_gb(size)})" for size, name in most)
        lines.append(f"close browser tabs and other programs, and run this again; lessons {largest} need most")
    return "\n".join(lines)


def _others(sizes: list[int]) -> list[str]:
    """What is to be said of other notebooks' kernels of so many bytes."""
    if not sizes:
        return []
    many, those = ("s are", "those") if len(sizes) > 1 else (" is", "it")
    found = f"{len(sizes)} other notebook{many} open and would give back {_gb(sum(sizes))}"
    return [f"{found}: close {those} if you are done (File > Close and Shut Down Notebook)"]


def _records(name: str) -> dict[str, dict]:
    """A file of measurements by lesson; nothing where there is none yet."""
    file = shipped(f"data/results/{name}.json")
    return read_json(file) if file.is_file() else {}


def _other_kernels() -> Iterator[int]:
    """Bytes that each other notebook's kernel of this user would give back."""
    own = psutil.Process()
    kin = {own.pid, own.ppid()}  # Windows starts an environment's Python by way of another one
    for process in psutil.process_iter(["cmdline", "username"]):
        with suppress(psutil.Error):
            kernel = any("ipykernel" in word for word in process.info["cmdline"] or ())
            if kernel and process.pid not in kin and process.info["username"] == own.username():
                size = process.memory_full_info().uss
                if size > STUB:
                    yield size


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

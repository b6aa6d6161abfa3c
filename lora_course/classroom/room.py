"""How much memory a lesson needs, how much is free here, and what to do if too little is free.

Lessons are designed for 8 GB machines with a browser open, which leaves `KERNEL` bytes for one lesson's kernel. A test
compares every recorded peak with this limit, and `pytest -m memory` runs every lesson under it.
"""

from typing import NamedTuple

import psutil

from lora_lab.files import read_json
from lora_lab.machine import memory
from lora_lab.training.assets import shipped

# In bytes:
MACHINE = 8 * 10**9  # an "8 GB" machine: 8.6e9 installed, minus what firmware and graphics reserve
SYSTEM = 3 * 10**9  # the system and its services: a conservative assumption for Windows 11 after startup
BROWSER = 15 * 10**8  # the browser with a lesson open and the Jupyter server; docs/install.md has measurements
KERNEL = MACHINE - SYSTEM - BROWSER  # what is left for one lesson's kernel and all that it starts


class Peak(NamedTuple):
    """The most memory that a lesson's kernel used, with the date and the hardware."""

    bytes: int
    date: str
    hardware: str


def number(lesson: str) -> str:
    """Return a lesson's number: `05` for `05_as_good_as_full`."""
    return lesson.partition("_")[0]


def peaks() -> dict[str, Peak]:
    """Return the largest measurement of each lesson, by name."""
    graded, largest = read_json(shipped("data/results/lesson_times.json")), {}
    for name, records in read_json(shipped("data/results/lesson_memory.json")).items():
        measured = [Peak(record["peak_bytes"], record["date"], record["hardware"]) for record in records.values()]
        if record := graded.get(name):  # at full length; the grader runs without Jupyter
            measured.append(Peak(record["peak_mib"] * 2**20, record["date"], record["hardware"]))
        largest[name] = max(measured)
    return largest


def room_for(lesson: str) -> str:
    """Return a warning if this machine has too little memory for a lesson, given by its number; otherwise ""."""
    total, free = memory()
    needed = next((peak for name, peak in peaks().items() if number(name) == lesson), None)
    if needed is None or total is None or free is None:
        return ""
    free += psutil.Process().memory_info().rss  # this kernel's own memory is part of the peak
    if needed.bytes <= free:
        return ""
    peak, has, left = (f"{size / 1e9:.1f} GB" for size in (needed.bytes, total, free))
    return (
        f"memory: this lesson needed up to {peak} when measured ({needed.date}, {needed.hardware})\n"
        f"this machine has {has}, of which only {left} is free for the lesson: shut down other notebooks "
        "(File > Close and Shut Down Notebook), close browser tabs and other programs, and run this cell again"
    )

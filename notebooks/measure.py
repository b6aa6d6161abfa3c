"""Measure what the lessons take at full length on this machine: seconds for each cell, and the process's peak memory.

python notebooks/measure.py 00 04      those lessons, solved; the rest of the file stays as it was
python notebooks/measure.py --fast 03  with FAST=1, printed only

Sweeps find the runs that ship with the lab, as in a class that is short of time: the line for it is uncommented.

Written to data/results/lesson_times.json, from which `lora_course.lesson` estimates a lesson's minutes.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from build import chosen, target

from lora_course.classroom.grading import Limits, grade
from lora_lab.files import read_json, write_json
from lora_lab.training import device

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "data" / "results" / "lesson_times.json"


def measured(path: Path, limits: Limits) -> dict[str, Any]:
    """One solved lesson, run from top to bottom."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        (row,) = grade(folder, limits=limits)
    cells = row["cell_seconds"]
    return {
        "seconds": round(sum(cells), 1),
        "cells": [round(seconds, 2) for seconds in cells],
        "peak_mib": row["peak_bytes"] // 2**20,
        "status": row["status"],
        "errors": [f"{error['type']} in code cell {error['cell'] + 1}" for error in row["errors"]],
        "right": f"{row['right']} of {row['of']}",
        "refused": row["refused"],
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": device.describe(device.available_devices()[0]),
        "load": f"{os.getloadavg()[0]:.0f} programs wanted the {os.cpu_count()} cores"
        if hasattr(os, "getloadavg")
        else "",
    }


def main(arguments: list[str]) -> None:
    """Measure what the arguments ask for."""
    fast = "--fast" in arguments
    limits = Limits(seconds=6 * 3600, memory_gib=16, full=not fast)
    for source in chosen(arguments):
        found = measured(target(source, solved=True), limits)
        print(source.stem, {name: value for name, value in found.items() if name != "cells"}, flush=True)
        if not fast:
            known = read_json(RESULTS) if RESULTS.is_file() else {}
            write_json(RESULTS, dict(sorted({**known, source.stem: found}.items())))


if __name__ == "__main__":
    main(sys.argv[1:])

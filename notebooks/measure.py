"""Measure the seconds of each cell and the peak memory of full-length lessons: data/results/lesson_times.json.

python notebooks/measure.py 00 04      run the solutions of these lessons and update the file
python notebooks/measure.py --fast 03  run with FAST=1 and only print the result

Sweeps load the runs that ship with the lab, as in a class that is short of time. `lora_course.lesson` estimates the
minutes of a lesson from this file.
"""

import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from build import HERE, chosen, parser_of, target

from lora_course.classroom.grading import Limits, grade
from lora_lab.files import read_json, write_json
from lora_lab.training import device

RESULTS = HERE.parent / "data" / "results" / "lesson_times.json"


def measured(path: Path, limits: Limits) -> dict[str, Any]:
    """Run a notebook and return its measurements."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        (row,) = grade(folder, limits=limits)
    load = f"{os.getloadavg()[0]:.0f} programs wanted the {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
    return {
        "seconds": round(sum(row["cell_seconds"]), 1),
        "cells": [round(seconds, 2) for seconds in row["cell_seconds"]],
        "peak_mib": row["peak_bytes"] // 2**20,
        "status": row["status"],
        "errors": [f"{error['type']} in code cell {error['cell'] + 1}" for error in row["errors"]],
        "right": f"{row['right']} of {row['of']}",
        "refused": row["refused"],
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": device.describe(device.available_devices()[0]),
        "load": load,
    }


def main(arguments: list[str]) -> None:
    """Measure the lessons that the command line names."""
    options = parser_of(__doc__, "--fast").parse_intermixed_args(arguments)
    limits = Limits(seconds=6 * 3600, memory_gib=16, full=not options.fast)
    for source in chosen(options.lessons):
        result = measured(target(source, solved=True), limits)
        print(source.stem, {name: value for name, value in result.items() if name != "cells"}, flush=True)
        if not options.fast:
            results = read_json(RESULTS) if RESULTS.is_file() else {}
            write_json(RESULTS, dict(sorted({**results, source.stem: result}.items())))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Time `import lora_lab` and `lora-lab --help` in new processes, including the start of Python."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.measure import goal, seconds, table

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import lora_lab": ["-c", "import lora_lab, sys; sys.exit('torch' in sys.modules)"],  # fails if it imports torch
    "lora-lab --help": ["-m", "lora_course", "--help"],
}


def report(quick: bool) -> Iterator[str]:
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    times = {
        name: [seconds(lambda c=command: run([sys.executable, *c])) for _ in range(3 if quick else 10)]
        for name, command in COMMANDS.items()
    }
    yield "## Start"
    yield table(
        ["process", "best s", "median s"],
        [[f"`{name}`", f"{min(taken):.3f}", f"{median(taken):.3f}"] for name, taken in times.items()],
    )
    yield goal("`import lora_lab` without torch, median seconds", median(times["import lora_lab"]), 0.3)
    yield goal("`lora-lab --help`, median seconds", median(times["lora-lab --help"]), 0.5)

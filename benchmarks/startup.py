"""What a newcomer waits for before anything happens: `import lora_lab`, and `lora-lab --help`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from benchmarks.measure import goal, seconds, table

IMPORT = ["-c", "import lora_lab, sys; sys.exit('torch' in sys.modules)"]  # fails when torch came along
HELP = ["-m", "lora_course", "--help"]


def process(arguments: Sequence[str]) -> None:
    """Run Python with these arguments. Raises: CalledProcessError when it fails."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def report(quick: bool) -> str:
    """The table and the verdicts, in Markdown: whole processes, Python's own start among them."""
    named = {"python -c pass": ["-c", "pass"], "import lora_lab": IMPORT, "lora-lab --help": HELP}
    times = {name: [seconds(lambda a=a: process(a)) for _ in range(3 if quick else 10)] for name, a in named.items()}
    rows = [[f"`{name}`", f"{min(taken):.3f}", f"{median(taken):.3f}"] for name, taken in times.items()]
    return "\n".join(
        [
            "## Start\n",
            table(["process", "best s", "median s"], rows) + "\n",
            goal("`import lora_lab` without torch, median seconds", median(times["import lora_lab"]), 0.3),
            goal("`lora-lab --help`, median seconds", median(times["lora-lab --help"]), 0.5),
        ]
    )

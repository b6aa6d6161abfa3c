"""Measure how fast the memory accountant makes predictions and traces.

`python -m benchmarks estimators` includes this report. `python -m benchmarks.accountant METHOD` runs one trace of LARGE
and prints its seconds and its peak resident bytes as JSON. To measure peak memory, a trace needs its own process.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import goal, seconds
from lora_lab import LoRA
from lora_lab.accounting.memory import memory
from lora_lab.methods.full import FullFineTuning

LARGE, GIB = "llama-2-70b", 2**30
METHODS = {"LoRA r8": LoRA(rank=8), "full": FullFineTuning()}


def trace(method: str) -> None:
    """Trace one step, and print the seconds it takes (without imports) and the peak resident bytes of this process."""
    time = seconds(lambda: memory(LARGE, METHODS[method], batch=1, seq=512, trace=True))
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps([time, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit]))


def microseconds(method: Any, **setup: Any) -> float:
    """Return the median time of a prediction for a new length. If there is no fit yet, make one first."""
    memory(LARGE, method, seq=100, **setup)
    return 1e6 * median(seconds(lambda s=s: memory(LARGE, method, seq=s, **setup)) for s in range(100, 2000, 10))


def report(quick: bool) -> Iterator[str]:
    yield "### Predictions and traces"
    qlora = microseconds(LoRA(targets="all-linear"), quantized="nf4", checkpointing=True)
    times = {name: microseconds(method) for name, method in METHODS.items()} | {"QLoRA with checkpointing": qlora}
    for name, us in times.items():
        yield goal(f"median microseconds of a prediction for {LARGE}, {name}", us, 1000, 0)
    for name in ("LoRA r8",) if quick else METHODS:
        command = [sys.executable, "-m", __name__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        time, resident = json.loads(done.stdout.splitlines()[-1])
        yield goal(f"seconds of a trace of {LARGE} 1x512, {name}", time, 20, 1)
        yield goal("peak resident GiB of the process of this trace", resident / GIB, 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=METHODS)
    trace(parser.parse_args().method)

"""Measure how fast the memory accountant predicts and traces, and how far its predictions are from its traces.

`python -m benchmarks estimators` includes this report. `python -m benchmarks.accountant METHOD` runs one trace of LARGE
and prints its seconds and its peak resident bytes as JSON. To measure peak memory, a trace needs its own process.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import goal, seconds, table
from lora_lab import LoRA
from lora_lab.accounting.memory import memory
from lora_lab.methods.full import FullFineTuning

LARGE, GIB = "llama-2-70b", 2**30
METHODS = {"LoRA r8": LoRA(rank=8), "full": FullFineTuning()}
SHAPES = (("gpt2", 1, 1024), ("llama-2-7b", 1, 512), ("llama-3-8b", 2, 2048), (LARGE, 1, 2048))
SETUPS: dict[str, dict[str, Any]] = {
    "LoRA r8": {"adapter_dtype": "bf16"},
    "LoRA r8, checkpointing": {"adapter_dtype": "bf16", "checkpointing": True},
    "LoRA r8, fp32 adapters": {"adapter_dtype": "fp32"},
    "full": {},
}
HEAD = ["model, batch x length", "method", "predicted GiB", "traced GiB", "predicted - traced %"]


def trace(method: str) -> None:
    """Trace one step, and print its seconds (without imports) and the peak resident bytes of this process."""
    time = seconds(lambda: memory(LARGE, METHODS[method], batch=1, seq=512, trace=True))
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps([time, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit]))


def microseconds(method: Any, **setup: Any) -> float:
    """Return the median time of a prediction for a new length. If there is no fit yet, make one first."""
    memory(LARGE, method, seq=100, **setup)
    return 1e6 * median(seconds(lambda s=s: memory(LARGE, method, seq=s, **setup)) for s in range(100, 2000, 10))


def report(quick: bool) -> Iterator[str]:
    rows, errors = [], []
    for model, batch, seq in SHAPES[:2] if quick else SHAPES:
        lora = LoRA(rank=8, targets=("c_attn",) if model == "gpt2" else ("q", "v"))
        for name, options in SETUPS.items():
            method, setup = FullFineTuning() if name == "full" else lora, {"batch": batch, "seq": seq, **options}
            predicted, traced = (
                memory(model, method, trace=on, optimizer="adamw-foreach", **setup).peak for on in (False, True)
            )
            errors.append(100 * (predicted / traced - 1))
            sizes = [f"{predicted / GIB:.2f}", f"{traced / GIB:.2f}", f"{errors[-1]:+.3f}"]
            rows.append([f"{model} {batch}x{seq}", name, *sizes])
    yield "### Prediction against trace"
    yield table(HEAD, rows)
    yield goal("largest error of a prediction against its trace, in percent", max(map(abs, errors)), 0.1, 3)
    qlora = microseconds(LoRA(targets="all-linear"), quantised="nf4", checkpointing=True)
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
    trace(sys.argv[1])

"""Compare `lora-lab train` with PEFT and HF Trainer, both with their own defaults, from a cold start to a test score.

Each run is a process that imports, loads, tokenizes, trains and scores the test split. Both train on the same rows with
the same rank, rate and number of examples. Our runs also score the validation split nine times.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

from benchmarks.measure import goal, paired, table


def timed(command: list[str], *, plain: bool = False) -> tuple[float, dict[str, Any]]:
    """Run Python with this command; return the wall time and the JSON object in the last line of its output.

    plain   Undo the lab's setting for OpenMP threads, so that Python runs as it does without the lab.
    """
    start = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if plain:
        environment["GOMP_SPINCOUNT"] = "300000"  # libgomp's default
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start, json.loads(done.stdout.splitlines()[-1])


def report(quick: bool) -> Iterator[str]:
    seeds, steps = (1, 100) if quick else (3, 400)
    ours, theirs = list[float](), list[float]()
    recipe = ["--model", "minilm", "--task", "rt", "--rank", "8", "--alpha", "16", "--targets", "q,v", "--lr", "2e-3"]

    def train_ours() -> None:  # the lab chooses dtype, attention and batches
        with tempfile.TemporaryDirectory() as out:
            run = ["--steps", str(steps), "--seed", str(len(ours)), "--out", out, "--json"]
            _, result = timed(["-m", "lora_lab", "train", *recipe, *run])
        ours.append(result["metrics"]["accuracy"])

    def train_theirs() -> None:
        _, result = timed(["-m", "benchmarks.hf_trainer", str(len(theirs)), str(steps)], plain=True)
        theirs.append(result["accuracy"])

    times = paired(train_ours, train_theirs, pairs=seeds, warm_up=0)
    yield f"## A whole run against PEFT and HF Trainer, {steps} steps of 16"
    columns = zip(times.ours, times.theirs, times.ratios, ours, theirs, strict=True)
    yield table(
        ["seed", "ours s", "theirs s", "ratio", "our accuracy", "their accuracy"],
        [
            [str(seed), f"{a:.1f}", f"{b:.1f}", f"{ratio:.2f}", f"{our:.1%}", f"{their:.1%}"]
            for seed, (a, b, ratio, our, their) in enumerate(columns)
        ],
    )
    yield "Our runs also score the validation split nine times."
    for name, accuracies in (("ours", ours), ("theirs", theirs)):
        deviation = f", standard deviation {100 * stdev(accuracies):.1f} points" if seeds > 1 else ""
        yield f"Mean test accuracy, {name}: {mean(accuracies):.1%}{deviation}."
    yield goal("wall time, median ratio", times.ratio, 0.5)
    yield goal("accuracy, theirs minus ours in points", 100 * (mean(theirs) - mean(ours)), 0)

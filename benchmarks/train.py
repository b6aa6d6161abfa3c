"""`lora-lab train` with its own choices against PEFT and HF Trainer with their defaults, from a cold start to a score.

Each run is a process of its own: imports, loading, tokenising, training on the same rows at the same rank, rate and
number of examples, and scoring the test split. Ours scores the validation split eight times meanwhile; theirs never.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import mean, stdev

from benchmarks.measure import Paired, goal, table

Result = tuple[float, float]  # seconds, accuracy


def timed(command: list[str], *, plain: bool = False) -> tuple[float, dict]:
    """Wall time of a Python command, and the JSON object in the last line of what it printed.

    plain   without what the lab has set for its own threads: as somebody runs it who has never heard of us
    """
    start = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if plain:
        environment["GOMP_SPINCOUNT"] = "300000"  # libgomp's default
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start, json.loads(done.stdout.splitlines()[-1])


def ours(seed: int, steps: int) -> Result:
    """The lab's own command; what it does not say (dtype, attention, batches) the lab chooses."""
    with tempfile.TemporaryDirectory() as out:
        recipe = ["--model", "minilm", "--task", "rt", "--rank", "8", "--alpha", "16", "--targets", "q,v"]
        run = ["--lr", "2e-3", "--steps", str(steps), "--seed", str(seed), "--out", out, "--json"]
        seconds, result = timed(["-m", "lora_lab", "train", *recipe, *run])
    return seconds, result["metrics"]["accuracy"]


def theirs(seed: int, steps: int) -> Result:
    """PEFT and Trainer."""
    seconds, result = timed(["-m", "benchmarks.hf_trainer", str(seed), str(steps)], plain=True)
    return seconds, result["accuracy"]


def pair(seed: int, steps: int) -> tuple[Result, Result]:
    """Both, in turn first."""
    if seed % 2:
        second, first = theirs(seed, steps), ours(seed, steps)
        return first, second
    return ours(seed, steps), theirs(seed, steps)


def report(quick: bool) -> str:
    """The table and the verdicts, in Markdown."""
    seeds, steps = (1, 100) if quick else (3, 400)
    pairs = [pair(seed, steps) for seed in range(seeds)]
    times = Paired(tuple(a for (a, _), _ in pairs), tuple(b for _, (b, _) in pairs))
    our_accuracy, their_accuracy = [a for (_, a), _ in pairs], [b for _, (_, b) in pairs]
    rows = [
        [str(seed), f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}", f"{100 * our:.1f}%", f"{100 * their:.1f}%"]
        for seed, ((a, our), (b, their)) in enumerate(pairs)
    ]
    return "\n".join(
        [
            f"## A whole run against PEFT and HF Trainer, {steps} steps of 16\n",
            table(["seed", "ours s", "theirs s", "ratio", "our accuracy", "their accuracy"], rows) + "\n",
            "Ours scores the validation split eight times meanwhile, theirs never.",
            f"Test accuracy: ours {_spread(our_accuracy)}, theirs {_spread(their_accuracy)}.\n",
            goal("wall time, median ratio", times.ratio, 0.5),
            goal("accuracy, theirs minus ours in points", 100 * (mean(their_accuracy) - mean(our_accuracy)), 0),
        ]
    )


def _spread(values: list[float]) -> str:
    spread = f" (standard deviation {100 * stdev(values):.1f})" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f} %{spread}"

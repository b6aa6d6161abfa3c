"""Compare three ways to train sixteen recipes: PEFT and HF Trainer one by one, our runs one by one, and our packs.

The recipes have ranks 1 to 32, two rates, and 200 steps of 8 or of 16 rows. Each way runs from a cold start to all test
scores, without validation. The report also compares a sweep of three seeds with --choose to three times HF Trainer's
time. It shows how the cost of a step grows with the pack, and how close steps come to the fastest matrix product here.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from statistics import mean, median, stdev
from typing import Any

import torch

from benchmarks.measure import goal, seconds, table
from benchmarks.train import timed
from lora_lab import LoRA, Recipe, memory
from lora_lab.experiments.sweep import pack_size
from lora_lab.training import device
from lora_lab.training.member import train_step, training_mode
from lora_lab.training.pack import Pack

RANKS, RATES, STEPS = (1, 2, 4, 8, 12, 16, 24, 32), ("1e-3", "2e-3"), 200
MEMBERS = (1, 2, 4, 8, 16, 32)


def sweep(batch: int, *options: str) -> tuple[float, dict[str, Any]]:
    """Return the seconds and the JSON output of `lora-lab sweep`."""
    grid = ["--rank", ",".join(map(str, RANKS)), "--lr", ",".join(RATES), "--steps", str(STEPS), "--batch", str(batch)]
    with tempfile.TemporaryDirectory() as out:
        return timed(["-m", "lora_lab", "sweep", *grid, "--out", out, "--json", *options])


def compared(batch: int, quick: bool) -> Iterator[str]:
    """Yield the comparison at one batch size."""
    grid = [(rank, rate) for rank in RANKS for rate in RATES]
    done = grid[::5] if quick else grid  # both rates
    fixed = ["-m", "benchmarks.hf_trainer", "0", str(STEPS)]
    runs = [timed([*fixed, str(rank), rate, str(batch)], plain=True) for rank, rate in done]
    their_time = mean(time for time, _ in runs) * len(grid)
    solo_time, solo = sweep(batch, "--validations", "0", "--solo")
    pack_time, packed = sweep(batch, "--validations", "0")
    choice_time, choice = sweep(batch, "--seed", "0-2", "--choose")
    solo_scores, pack_scores = ([run["metrics"]["accuracy"] for run in output["runs"]] for output in (solo, packed))
    ways = {
        "PEFT + Trainer": (their_time, [result["accuracy"] for _, result in runs]),
        "ours, one by one": (solo_time, solo_scores),
        "ours, packed": (pack_time, pack_scores),
    }
    yield f"### 16 recipes, {STEPS} steps of {batch} rows; packs of {packed['packs']}"
    yield table(
        ["", "seconds", "times faster", "mean accuracy", "standard deviation over recipes"],
        [
            [name, f"{time:.0f}", f"{their_time / time:.2f}", f"{mean(scores):.1%}", f"{100 * stdev(scores):.1f}"]
            for name, (time, scores) in ways.items()
        ],
    )
    difference = max(abs(a - b) for a, b in zip(solo_scores, pack_scores, strict=True))
    stopped, tested = len(choice["stopped"]), sum(bool(run["metrics"]) for run in choice["runs"])
    yield f"PEFT + Trainer ran {len(done)} of the 16 recipes{', and its time is scaled' if quick else ''}."
    yield f"The accuracies of a recipe in a pack and alone differ by at most {100 * difference:.1f} points."
    yield f"3 seeds and --choose: {stopped} of 16 recipes stopped early, {tested} of 48 tested, {choice_time:.0f} s."
    yield goal("wall time, packed against PEFT + Trainer", pack_time / their_time, 1 / 7)
    yield goal("wall time, 3 seeds and --choose against 3 times PEFT + Trainer", choice_time / (3 * their_time), 1 / 12)


def recipes_of(members: int, batch: int) -> list[Recipe]:
    """Return different recipes: they go through all ranks, and then through all ranks again at the next rate."""
    return [Recipe("minilm", "rt", LoRA(RANKS[k % 8]), lr=1e-3 * (1 + k // 8), batch=batch) for k in range(members)]


def packed_step(members: int, batch: int) -> tuple[float, float]:
    """Return the median seconds of a packed step on fixed rows, and its FLOP/s."""
    pack = Pack(recipes_of(members, batch))
    training_mode(pack.model, base_dropout=False)
    step, rows = next(pack.batches())
    run = partial(device.in_parts, partial(train_step, step, rows, pack.members), pack.model, members)
    run()
    time = median(seconds(run) for _ in range(9))
    setup = {"batch": members * batch, "seq": rows.input_ids.shape[1], "dtype": "fp32", "device": "cpu", "padded": True}
    return time, (memory("minilm", LoRA(8), **setup).flops or 0) / time


def growth(batch: int) -> Iterator[str]:
    """Yield the cost of a step by pack size. The goal is for the size that a sweep of 16 chooses on this machine."""
    x = torch.randn(2048, 2048, dtype=device.DTYPES[device.choose(32).dtype])
    peak = 2 * 2048**3 / min(seconds(lambda: x @ x) for _ in range(5))
    size = pack_size(recipes_of(16, batch))
    measured = {k: packed_step(k, batch) for k in sorted({*MEMBERS, size})}
    alone = measured[1][0]
    yield f"### A step of {batch} rows"
    yield table(
        ["members", "ms per step", "ms per member", "times cheaper than alone", "share of the matrix peak"],
        [
            [str(k), f"{1e3 * time:.0f}", f"{1e3 * time / k:.1f}", f"{alone * k / time:.2f}", f"{flops / peak:.0%}"]
            for k, (time, flops) in measured.items()
        ],
    )
    yield (
        f"The matrix peak measured here is {peak / 1e9:.0f} GFLOP/s in {device.choose(32).dtype}. Work that the last "
        "layer skips is counted, too."
    )
    ratio = measured[size][0] / size / alone
    yield goal(f"a member's step in a pack of {size} (chosen here by a sweep of 16) against alone", ratio, 1 / 1.8)


def report(quick: bool) -> Iterator[str]:
    yield "## A sweep of 16 against PEFT and HF Trainer"
    for batch in (8,) if quick else (8, 16):
        yield from compared(batch, quick)
    yield from growth(8)

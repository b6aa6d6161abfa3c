"""Sixteen recipes, three ways in one go: PEFT and HF Trainer one after another, our runs one after another, our packs.

Ranks 1 to 32 at two rates, 200 steps of 8 and of 16 rows, from a cold start to every test score. Trainer never
validates; neither does ours. Then the best of the sixteen by three seeds, against three times Trainer's sixteen; how a
step's cost grows with the members; and what share of this machine's measured matrix peak it reaches.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.measure import goal, seconds, table
from benchmarks.train import timed
from lora_lab import LoRA, Recipe, memory
from lora_lab.experiments.sweep import pack_size
from lora_lab.training import device
from lora_lab.training.loop import training_mode, update
from lora_lab.training.pack import Pack

RANKS, RATES, STEPS = (1, 2, 4, 8, 12, 16, 24, 32), ("1e-3", "2e-3"), 200
MEMBERS = (1, 2, 4, 8, 16, 32)


def theirs(batch: int, some: Sequence[tuple[int, str]]) -> tuple[float, list[float]]:
    """Seconds and accuracies of PEFT + Trainer, one process a recipe."""
    took, accuracies = 0.0, []
    for rank, rate in some:
        words = ["-m", "benchmarks.hf_trainer", "0", str(STEPS), str(rank), rate, str(batch)]
        one, result = timed(words, plain=True)
        took += one
        accuracies.append(result["accuracy"])
    return took, accuracies


def ours(batch: int, *how: str) -> tuple[float, dict[str, Any]]:
    """Seconds and the answer of `lora-lab sweep`."""
    grid = ["--rank", ",".join(map(str, RANKS)), "--lr", ",".join(RATES), "--steps", str(STEPS), "--batch", str(batch)]
    with tempfile.TemporaryDirectory() as out:
        return timed(["-m", "lora_lab", "sweep", *grid, "--out", out, "--json", *how])


def compared(batch: int, quick: bool) -> str:
    """One batch size: the table and its verdicts."""
    recipes = [(rank, rate) for rank in RANKS for rate in RATES]
    some = recipes[::4] if quick else recipes
    their_time, their_accuracy = theirs(batch, some)
    their_time *= len(recipes) / len(some)
    solo_time, solo = ours(batch, "--validations", "0", "--solo")
    pack_time, packed = ours(batch, "--validations", "0")
    choice_time, chosen = ours(batch, "--seed", "0-2", "--choose")
    found = {"PEFT + Trainer": their_accuracy, "ours alone": _accuracies(solo), "ours packed": _accuracies(packed)}
    times = dict(zip(found, (their_time, solo_time, pack_time), strict=True))
    rows = [
        [
            name,
            f"{times[name]:.0f}",
            f"{their_time / times[name]:.2f}",
            f"{100 * mean(a):.1f}%",
            f"{100 * stdev(a):.1f}",
        ]
        for name, a in found.items()
    ]
    apart = max(abs(a - b) for a, b in zip(found["ours alone"], found["ours packed"], strict=True))
    lines = [
        f"### 16 recipes, {STEPS} steps of {batch} rows; packs of {packed['packs']}\n",
        table(["", "seconds", "times faster", "mean accuracy", "spread over recipes"], rows) + "\n",
        f"Theirs was run for {len(some)} of the 16 recipes" + (", and scaled." if quick else "."),
        f"Packed against alone, the same recipe: accuracies at most {100 * apart:.1f} points apart.\n",
    ]
    told = len(chosen["stopped"]), sum(bool(run["metrics"]) for run in chosen["runs"]), choice_time
    lines.append("With 3 seeds and --choose {} of 16 stopped early and {} of 48 were tested: {:.0f} s.\n".format(*told))
    lines.append(goal("wall time, packed against PEFT + Trainer", pack_time / their_time, 1 / 7))
    lines.append(goal("and with 3 seeds and --choose", choice_time / (3 * their_time), 1 / 12))
    return "\n".join(lines)


def _accuracies(answer: dict[str, Any]) -> list[float]:
    return [run["metrics"]["accuracy"] for run in answer["runs"]]


def recipes_of(members: int, batch: int, **fields: Any) -> list[Recipe]:
    """Recipes for `members` members: the ranks again and again, each time at a rate of its own."""
    return [
        Recipe("minilm", "rt", LoRA(RANKS[k % 8]), lr=1e-3 * (1 + k // 8), batch=batch, **fields)
        for k in range(members)
    ]


def steps(members: int, batch: int, **fields: Any) -> tuple[float, float]:
    """Seconds of a packed step, and its FLOP/s: the median of some steps on the same rows."""
    recipes = recipes_of(members, batch, **fields)
    pack = Pack(recipes)
    training_mode(pack.model, base_dropout=False)
    step, given = next(pack.batches())

    def once() -> None:
        device.in_parts(partial(update, step, given, pack.members), pack.model, members)

    once()
    took = sorted(seconds(once) for _ in range(9))[4]
    setup = {
        "batch": members * batch,
        "seq": given.input_ids.shape[1],
        "dtype": "fp32",
        "device": "cpu",
        "padded": True,
    }
    return took, (memory("minilm", LoRA(8), **setup).flops or 0) / took


def peak() -> float:
    """FLOP/s of a large product in the dtype that the lab chooses here."""
    x = torch.randn(2048, 2048, dtype=device.choose(32).torch_dtype)
    return 2 * 2048**3 / min(seconds(lambda: x @ x) for _ in range(5))


def growth(batch: int) -> str:
    """A step by members: milliseconds a member, against alone, and the share of the matrix peak.

    The goal is of a pack of the size that the sweep of 16 takes on this machine.
    """
    best, taken = peak(), pack_size(recipes_of(16, batch))
    measured = {k: steps(k, batch) for k in sorted({*MEMBERS, taken})}
    alone = measured[1][0]
    rows = [
        [str(k), f"{1e3 * took:.0f}", f"{1e3 * took / k:.1f}", f"{alone * k / took:.2f}", f"{flops / best:.0%}"]
        for k, (took, flops) in measured.items()
    ]
    head = ["members", "ms a step", "ms a member", "times cheaper than alone", "share of the matrix peak"]
    ratio = measured[taken][0] / taken / alone
    chosen = device.choose(32).dtype
    words = (
        f"Matrix peak measured here: {best / 1e9:.0f} GFLOP/s in {chosen}; what the last layer saves counts as done."
    )
    verdict = goal(
        f"a member's step of {batch} rows in a pack of {taken}, as the sweep takes here, against alone", ratio, 1 / 1.8
    )
    return "\n".join([f"### A step of {batch} rows\n", table(head, rows) + "\n", words, verdict])


def report(quick: bool) -> str:
    """All parts, in Markdown."""
    parts = [compared(8, quick)] if quick else [compared(8, quick), compared(16, quick)]
    return "\n\n".join(["## A sweep of 16 against PEFT and HF Trainer", *parts, growth(8)])

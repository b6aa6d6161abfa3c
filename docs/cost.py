"""Measure what a sweep costs on this machine: `python docs/cost.py [--threads N] [--steps N]`.

Packs of 1 to 64 members of MiniLM take a few steps at several ranks, lengths and rows per step, and score 500 rows. CPU
seconds are those of all threads. A line is fitted to the seconds of a step, weighted by 1 / seconds:

    seconds of a step = fixed + members * share

Written to data/results/cost.json. docs/guide.md quotes it under "What a sweep costs".
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from lora_lab import LoRA, Recipe
from lora_lab.files import write_json
from lora_lab.training import device
from lora_lab.training.loop import training_mode, update
from lora_lab.training.pack import Pack
from lora_lab.training.parts import in_parts

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results" / "cost.json"
MEMBERS = (1, 4, 16, 64)  # the last in the first setup only
SETUPS = [(8, 32, 8), (1, 32, 8), (64, 32, 8), (8, 16, 8), (8, 64, 8), (8, 32, 2), (8, 32, 16)]  # rank, tokens, rows


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds on the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - clock


def measured(members: int, rank: int, tokens: int, rows: int, steps: int) -> dict[str, float]:
    """Seconds of a step (the median of `steps`), and CPU seconds of scoring the 500 validation rows per member."""
    some = {"batch": rows, "examples": 64}  # fewer texts to encode; the rows of a step are drawn below
    pack = Pack([Recipe("minilm", "rt", LoRA(rank), lr=1e-4 * (1 + k), **some) for k in range(members)])
    training_mode(pack.model, base_dropout=False)
    _, drawn = next(pack.batches())
    ids = torch.randint(1000, 20000, (members * rows, tokens))
    batch = replace(drawn, input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=None)
    step = partial(in_parts, partial(update, 1, batch, pack.members), pack.model, members)
    step()
    cpu, clock = np.median([spent(step) for _ in range(steps)], axis=0)
    found = {"members": members, "rank": rank, "tokens": tokens, "rows": rows, "cpu": cpu, "clock": clock}
    if (rank, tokens, rows) == SETUPS[0] and members in (4, 16):
        found["scoring"] = spent(pack.validate)[0] / members
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="parts of a pack that train at once")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    Pack([Recipe("minilm", "rt", LoRA(8))])  # imports, model, and all texts encoded
    startup, runs = time.process_time(), []
    for rank, tokens, rows in SETUPS:
        some = [measured(members, rank, tokens, rows, given.steps) for members in (MEMBERS[:-1] if runs else MEMBERS)]
        count, cpu = np.array([(one["members"], one["cpu"]) for one in some]).T
        share, fixed = np.polyfit(count, cpu, 1, w=1 / cpu)
        print(f"rank {rank:2}, {rows:2} x {tokens:2} tokens: {1e3 * fixed:4.1f} + members * {1e3 * share:.2f} ms", flush=True)
        runs += [{name: round(float(value), 5) for name, value in one.items()} for one in some]
    made = {"date": datetime.now(UTC).date().isoformat(), "hardware": device.describe("cpu"), "torch": version("torch")}
    write_json(RESULTS, {**made, "threads": given.threads, "startup": round(startup, 1), "runs": runs})


if __name__ == "__main__":
    main()

"""Measure what a sweep costs on this machine: `python docs/cost.py [--most MEMBERS] [--steps N] [--threads N]`.

Packs of 1 to 64 members of MiniLM take a few steps at several ranks, lengths and rows per step, and score 500 rows. CPU
seconds are those of all threads. docs/quoted.py fits a line to the seconds of a step,

    seconds of a step = fixed + members * share

and docs/guide.md quotes it under "What a sweep costs". Written to data/results/cost.json after each setup.
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
    return found | ({"scoring": spent(pack.validate)[0] / members} if members == 4 else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=MEMBERS[-1], help="members of the largest pack")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="parts of a pack that train at once")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    first, _ = spent(lambda: Pack([Recipe("minilm", "rt", LoRA(8))]))
    startup, (again, _) = time.process_time(), spent(lambda: Pack([Recipe("minilm", "rt", LoRA(8))]))
    made = {"date": datetime.now(UTC).date().isoformat(), "hardware": device.describe("cpu"), "torch": version("torch")}
    made |= {"threads": given.threads, "startup": round(startup, 1), "pack": round(min(first, again), 2), "runs": []}
    for at, setup in enumerate(SETUPS):
        for members in [one for one in (MEMBERS[:-1] if at else MEMBERS) if one <= given.most]:
            found = measured(members, *setup, given.steps)
            print(found, flush=True)
            made["runs"].append({name: round(float(value), 5) for name, value in found.items()})
        write_json(RESULTS, made)


if __name__ == "__main__":
    main()

"""Measure the cost of a sweep on this machine: `python docs/cost.py [MAX_MEMBERS]`.

Packs of 1 to 64 MiniLM members train for a few steps at several ranks, lengths and batch sizes, and score 500 rows.
docs/quoted.py fits a line to the seconds of a step,

    seconds of a step = fixed + members * share

and docs/guide.md quotes it under "What a sweep costs". Each setup updates data/results/cost.json.
"""

import sys
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
from lora_lab.training.device import in_parts
from lora_lab.training.member import train_step, training_mode
from lora_lab.training.pack import Pack

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results" / "cost.json"
MEMBERS = (1, 4, 16, 64)  # 64 only in the first setup
STEPS = 20
SETUPS = [(8, 32, 8), (1, 32, 8), (64, 32, 8), (8, 16, 8), (8, 64, 8), (8, 32, 2), (8, 32, 16)]  # rank, tokens, rows


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU and wall-clock seconds of one call."""
    cpu, clock = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - cpu, time.perf_counter() - clock


def measure(members: int, rank: int, tokens: int, rows: int) -> dict[str, float]:
    """Return the median seconds of a step, and the CPU seconds per member of scoring the 500 validation rows."""
    data = {"batch": rows, "examples": 64}  # fewer texts to encode; the step's rows are random
    pack = Pack([Recipe("minilm", "rt", LoRA(rank), lr=1e-4 * (1 + k), **data) for k in range(members)])
    training_mode(pack.model, base_dropout=False)
    _, batch = next(pack.batches())
    ids = torch.randint(1000, 20000, (members * rows, tokens))
    batch = replace(batch, input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=None)
    step = partial(in_parts, partial(train_step, 1, batch, pack.members), pack.model, members)
    step()
    cpu, clock = np.median([seconds(step) for _ in range(STEPS)], axis=0)
    row = {"members": members, "rank": rank, "tokens": tokens, "rows": rows, "cpu": cpu, "clock": clock}
    return row | ({"scoring": seconds(pack.validate)[0] / members} if members == 4 else {})


def main(max_members: int = MEMBERS[-1]) -> None:
    """Measure all setups with packs of up to `max_members` members, and write the results."""
    torch.set_num_threads(1)
    first, _ = seconds(lambda: Pack([Recipe("minilm", "rt", LoRA(8))]))
    startup, (second, _) = time.process_time(), seconds(lambda: Pack([Recipe("minilm", "rt", LoRA(8))]))
    cost = {"date": datetime.now(UTC).date().isoformat(), "hardware": device.describe("cpu"), "torch": version("torch")}
    cost |= {"threads": 1, "startup": round(startup, 1), "pack": round(min(first, second), 2), "runs": []}
    for number, setup in enumerate(SETUPS):
        for members in [n for n in (MEMBERS[:-1] if number else MEMBERS) if n <= max_members]:
            row = measure(members, *setup)
            print(row, flush=True)
            cost["runs"].append({name: round(float(value), 5) for name, value in row.items()})
        write_json(RESULTS, cost)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Train the runs of lesson 15 and write data/results/rates.csv: `python docs/rates.py [STORE] [PART ...]`.

What is asked, and what will count as an answer, written before the first run:

rank     Does the best rate depend on the rank? 200 steps of 8 rows of rt; ranks 1, 8, 64, 128 with alpha fixed at 16,
         alpha = r, 2 r and 5.66 sqrt(r). A rule keeps the best rate if the slope of its log2 over log2(rank) has an
         interval with 0 in it and within +-0.2. And alpha from 1 to 4,096 at rank 8: is an alpha far above 16, at its
         own rate, more than 1.5 points better?
batch    Does a large batch hurt LoRA more? rt, 1,600 rows in all, in batches of 2, 8 and 32. It does if the loss at the
         best rate grows more from batch 8 to batch 32 than full fine-tuning's, by an interval above 0.

Every cell has six rates an octave apart and three seeds. The best rate of a seed is where a parabola through its lowest
validation loss and both neighbors has its vertex; intervals are over seeds. Each part takes 10 to 45 minutes on two
cores; when interrupted, call it again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from math import log2, sqrt
from pathlib import Path
from typing import Any

import pandas as pd

from lora_lab import FullFineTuning, LoRA
from lora_lab.experiments.grid import alpha_of
from lora_lab.experiments.sweep import Sweep
from lora_lab.files import write_atomically
from lora_lab.methods.base import Method
from lora_lab.training.assets import shipped
from lora_lab.training.device import dtype_to_train
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Store

FILE = "data/results/rates.csv"
COLUMNS = (
    "part", "model", "task", "method", "rank", "alpha", "targets", "steps", "batch", "lr", "seed", "status", "loss",
    "score",
)  # fmt: skip
RULES = ("fixed:16", "rank", "2rank", "sqrt")


def octaves(center: float) -> list[float]:
    """Return six rates an octave apart, to two digits."""
    return [float(f"{center * 2 ** (k - 2.5):.2g}") for k in range(6)]


def ridge(alpha: float) -> float:
    """Return the best rate by the playground's ridge."""
    return float(2 ** (-9.3 + 0.45 * log2(16 / alpha)))


def recipes(part: str) -> Iterator[Recipe]:
    """Yield the recipes of a part."""

    def cell(method: Method, center: float, **told: Any) -> Iterator[Recipe]:
        own = {"model": "minilm", "task": "rt", "steps": 200, "batch": 8, "validations": 1} | told
        for lr in octaves(center):
            one = Recipe(method=method, lr=lr, **own)
            one = replace(one, dtype=dtype_to_train(one.dtype)) if method.trains_base else one
            yield from (replace(one, seed=seed) for seed in range(3))

    if part == "rank":
        pairs = {(rank, round(alpha_of(rule, rank), 2)) for rank in (1, 8, 64, 128) for rule in RULES}
        for rank, alpha in sorted(pairs | {(8, alpha) for alpha in (1, 4, 64, 256, 1024, 4096)}):
            yield from cell(LoRA(rank=rank, alpha=alpha), ridge(alpha))
    else:
        for method, center in ((LoRA(), ridge(16)), (FullFineTuning(), 1.4e-4)):
            for batch in (2, 8, 32):  # a larger batch wants a higher rate
                yield from cell(method, center * sqrt(batch / 8), steps=1600 // batch, batch=batch)


PARTS = ("rank", "batch")


def main(store: str = "runs/rates", *parts: str) -> None:
    """Train what the store lacks of these parts, or of all, then write what it has of all."""
    kept, rows = Sweep(store, scored=False), []
    for part in parts or PARTS:
        kept.run(list(recipes(part)))
    for part in PARTS:
        for recipe in recipes(part):
            if (run := Store(store).find(recipe)) is not None and run.history["validation"]:
                last, method = run.history["validation"][-1], recipe.method
                lora = [method.rank, method.alpha, "+".join(method.targets)] if isinstance(method, LoRA) else [None] * 3
                score = last.get("accuracy", last.get("perplexity"))
                told = [recipe.model, recipe.task, method.name, *lora, recipe.steps, recipe.batch, recipe.lr]
                rows.append([part, *told, recipe.seed, run.status, round(last["loss"], 5), round(score, 4)])
    table = pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n")
    write_atomically(path := shipped(FILE), table.encode())
    print(f"{Path(path).name}: {len(rows)} runs, {len(table):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

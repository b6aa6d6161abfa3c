"""Train the runs of lesson 15 and write data/results/rates.csv: `python docs/rates.py [STORE] [PART ...]`.

What is asked, and what will count as an answer, written before the first run:

rank     Does the best rate depend on the rank? 200 steps of 8 rows of rt; ranks 1, 8, 64, 128 with alpha fixed at 16,
         alpha = r, 2 r and 5.66 sqrt(r). A rule keeps the best rate if the slope of its log2 over log2(rank) has an
         interval with 0 in it and within +-0.2. And alpha from 1 to 4,096 at rank 8: is an alpha far above 16, at its
         own rate, more than 1.5 points better?
batch    Does a large batch hurt LoRA more? rt, 1,600 rows in all, in batches of 8 and 32. It does if the loss at the
         best rate grows more from batch 8 to batch 32 than full fine-tuning's, by an interval above 0.
smollm2  How many times full fine-tuning's best rate is LoRA's, on q and v and on all linear layers, for a model that
         writes? smollm2 on restaurants, 60 steps of 4 rows. "Ten times" is wrong here if an interval doesn't hold 10.

Every cell has six rates, an octave apart up to rounding, and three seeds. The best rate of a seed is where a parabola
through its lowest validation loss and both neighbors has its vertex; intervals are over seeds. On two cores `rank`
takes about 45 minutes, `batch` 25 and `smollm2` 80. When interrupted, call it again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from math import log2, sqrt
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
from lora_lab.training.runs import Run

FILE = "data/results/rates.csv"
COLUMNS = (
    "part", "method", "targets", "rank", "alpha", "steps", "batch", "lr", "seed", "loss", "accuracy",
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
    elif part == "smollm2":
        everywhere = LoRA(targets=("all-linear",))
        for method, center in ((LoRA(), 5e-3), (everywhere, 2e-3), (FullFineTuning(), 2.5e-4)):
            yield from cell(method, center, model="smollm2", task="restaurants", steps=60, batch=4)
    else:
        for method, center in ((LoRA(), ridge(16)), (FullFineTuning(), 1.4e-4)):
            for batch in (8, 32):  # a larger batch wants a higher rate
                yield from cell(method, center * sqrt(batch / 8), steps=1600 // batch, batch=batch)


PARTS = ("rank", "batch", "smollm2")


def main(store: str = "runs/rates", *parts: str) -> None:
    """Train what the store lacks of these parts, or of all, and write their rows; the other parts keep theirs."""
    old = pd.read_csv(path := shipped(FILE))
    tables = dict(list(old.groupby("part")))
    for part in parts or PARTS:
        runs = Sweep(store, scored=False).run(list(recipes(part))).runs
        tables[part] = pd.DataFrame([row(part, run) for run in runs], columns=COLUMNS)
    table = pd.concat([tables[part] for part in PARTS if part in tables]).astype(
        {"rank": "Int64"}
    )  # full fine-tuning has none
    write_atomically(path, (text := table.to_csv(index=False, lineterminator="\n")).encode())
    print(f"{path.name}: {len(table)} runs, {len(text):,} bytes")


def row(part: str, run: Run) -> list[Any]:
    """Return a run in the order of COLUMNS; loss and accuracy are on validation."""
    recipe, method, last = run.recipe, run.recipe.method, (run.history["validation"] or [{}])[-1]
    lora = [",".join(method.targets), method.rank, method.alpha] if isinstance(method, LoRA) else [None] * 3
    settings = [method.name, *lora, recipe.steps, recipe.batch, recipe.lr, recipe.seed]
    scores = [round(last[name], digits) if name in last else None for name, digits in (("loss", 5), ("accuracy", 4))]
    return [part, *settings, *scores]


if __name__ == "__main__":
    main(*sys.argv[1:])

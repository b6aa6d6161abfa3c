"""Train the runs of lesson 15 and write data/results/rates.csv: `python docs/rates.py [STORE] [PART ...]`.

The questions and the rules, written before the first run:

rank     Does the best rate depend on the rank? 200 steps of 8 rows of rt; ranks 1, 8, 64, 128; four rules for alpha:
         16, r, 2 r and 5.66 sqrt(r). The best rate is constant under such a rule if the slope of log2(best rate) over
         log2(rank) has an interval that contains 0 and stays within +-0.2. Also, alpha from 1 to 4,096 at
         rank 8: is an alpha far above 16, at its own best rate, more than 1.5 points better?
batch    Does a large batch hurt LoRA more? rt, 1,600 rows in total, in batches of 8 and 32. Yes if LoRA's loss at its
         best rate rises more from batch 8 to 32 than full fine-tuning's, with an interval above 0.
smollm2  How many times larger is LoRA's best rate than full fine-tuning's for a generative model, on q and v and on all
         linear layers? smollm2 on restaurants, 60 steps of 4 rows. "Ten times" is wrong if an interval excludes 10.

Each setting has six rates, each about twice the one before, and three seeds. The best rate of a seed is the vertex of a
parabola through its lowest validation loss and both neighbors; intervals are over seeds. On two cores `rank` takes
about 45 minutes, `batch` 25 and `smollm2` 80. If interrupted, run it again.
"""

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
COLUMNS = ["part", "method", "targets", "rank", "alpha", "steps", "batch", "lr", "seed", "loss", "accuracy"]
PARTS = ("rank", "batch", "smollm2")
RULES = ("fixed:16", "rank", "2rank", "sqrt")


def rates_around(center: float) -> list[float]:
    """Return six rates an octave apart, rounded to two digits."""
    return [float(f"{center * 2 ** (k - 2.5):.2g}") for k in range(6)]


def playground_rate(alpha: float) -> float:
    """Return the center of the playground's rates at an alpha."""
    return float(2 ** (-9.3 + 0.45 * log2(16 / alpha)))


def recipes(part: str) -> Iterator[Recipe]:
    """Yield the recipes of a part."""

    def runs(method: Method, center: float, **changes: Any) -> Iterator[Recipe]:
        settings = {"model": "minilm", "task": "rt", "steps": 200, "batch": 8, "validations": 1} | changes
        for lr in rates_around(center):
            recipe = Recipe(method=method, lr=lr, **settings)
            if method.trains_base:
                recipe = replace(recipe, dtype=dtype_to_train(recipe.dtype))
            yield from (replace(recipe, seed=seed) for seed in range(3))

    if part == "rank":
        pairs = {(rank, round(alpha_of(rule, rank), 2)) for rank in (1, 8, 64, 128) for rule in RULES}
        for rank, alpha in sorted(pairs | {(8, alpha) for alpha in (1, 4, 64, 256, 1024, 4096)}):
            yield from runs(LoRA(rank=rank, alpha=alpha), playground_rate(alpha))
    elif part == "smollm2":
        everywhere = LoRA(targets=("all-linear",))
        for method, center in ((LoRA(), 5e-3), (everywhere, 2e-3), (FullFineTuning(), 2.5e-4)):
            yield from runs(method, center, model="smollm2", task="restaurants", steps=60, batch=4)
    else:
        for method, center in ((LoRA(), playground_rate(16)), (FullFineTuning(), 1.4e-4)):
            for batch in (8, 32):  # a larger batch needs a higher rate
                yield from runs(method, center * sqrt(batch / 8), steps=1600 // batch, batch=batch)


def main(store: str = "runs/rates", *parts: str) -> None:
    """Train missing runs of these parts, by default of all, and update their rows of the table."""
    tables = dict(list(pd.read_csv(path := shipped(FILE)).groupby("part")))
    for part in parts or PARTS:
        runs = Sweep(store, scored=False).run(list(recipes(part))).runs
        tables[part] = pd.DataFrame([row(part, run) for run in runs], columns=COLUMNS)
    table = pd.concat([tables[part] for part in PARTS if part in tables])
    table = table.astype({"rank": "Int64"})  # full fine-tuning has no rank
    write_atomically(path, (text := table.to_csv(index=False, lineterminator="\n")).encode())
    print(f"{path.name}: {len(table)} runs, {len(text):,} bytes")


def row(part: str, run: Run) -> list[Any]:
    """Return the row of a run, with COLUMNS. Loss and accuracy are on validation."""
    recipe, method, last = run.recipe, run.recipe.method, (run.history["validation"] or [{}])[-1]
    lora = [",".join(method.targets), method.rank, method.alpha] if isinstance(method, LoRA) else [None] * 3
    settings = [method.name, *lora, recipe.steps, recipe.batch, recipe.lr, recipe.seed]
    scores = [round(last[name], digits) if name in last else None for name, digits in (("loss", 5), ("accuracy", 4))]
    return [part, *settings, *scores]


if __name__ == "__main__":
    main(*sys.argv[1:])

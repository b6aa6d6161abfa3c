"""Train the runs of lesson 19 on coin flips and write data/results/coins.csv: `python docs/coins.py [STORE]`.

The question and the rule, written before the first run: how many coin flips can an adapter memorize? MiniLM reads the
first eight words of a movie review with a random label, so only the labels can be learned. LoRA is on a single matrix,
v of the last layer, so that the rank matters. We use ranks 1, 2, 4 and 16, 128 to 2,048 texts, thirty passes, and three
seeds with different texts. The memory in bits is texts * (1 - loss / ln 2), with the last pass's mean training loss.
Memory grows with the rank if the slope of log2(bits) over log2(trainable parameters) at 2,048 texts has an interval
above 0. It is proportional to the number of parameters if that interval contains 1.

Each rank uses the best of five rates on seed 3 and 1,024 texts. Rank 0 is the head alone; it was added after the other
results were known. So was the last run, with sixty passes: is rank 1 full, or were thirty passes too few? About 60
minutes on one core. If interrupted, run it again.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lora_lab import HeadOnly, LoRA, load_task
from lora_lab.experiments.sweep import Sweep
from lora_lab.files import write_atomically
from lora_lab.training.assets import shipped
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run

FILE = "data/results/coins.csv"
RANKS, TEXTS, SEEDS = (0, 1, 2, 4, 16), (128, 512, 2048), (0, 1, 2)
RATES, TUNED_AT, TUNING_SEED = (0.003, 0.006, 0.012, 0.024, 0.048), 1024, 3
HEAD_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
BATCH, PASSES = 32, 30


def write_texts(file: Path) -> None:
    """Write the first eight words of each training review, labeled heads or tails at random."""
    texts = dict.fromkeys(" ".join(text.split()[:8]) for text in load_task("rt").train.texts)
    labels = np.random.default_rng(0).choice(["heads", "tails"], len(texts))
    write_atomically(file, pd.DataFrame({"text": list(texts), "label": labels}).to_csv(index=False).encode())


def loss(run: Run) -> float:
    """Return the mean training loss of a run's last pass."""
    return float(np.mean(run.history["loss"][-(run.recipe.examples // BATCH) :]))


def rank_of(run: Run) -> int:
    """Return the rank of a run, or 0 for the head alone."""
    return int(run.recipe.method.settings().get("rank", 0))


def main(store: str = "runs/coins") -> None:
    """Train missing runs, then write the table."""
    Path(store).mkdir(parents=True, exist_ok=True)
    write_texts(file := Path(store, "coins.csv"))

    def recipe(rank: int, texts: int, lr: float, seed: int, passes: int = PASSES) -> Recipe:
        method = LoRA(rank=rank, targets=("*.5.*.value",)) if rank else HeadOnly()
        steps = passes * texts // BATCH
        common = {"model": "minilm", "task": str(file), "validations": 0, "max_length": 16}
        return Recipe(method=method, lr=lr, steps=steps, batch=BATCH, examples=texts, **common).at_seed(seed)

    def train(recipes: Sequence[Recipe]) -> list[Run]:
        return list(Sweep(Path(store, "runs"), scored=False).run(recipes).runs)

    tuning = train([recipe(r, TUNED_AT, lr, TUNING_SEED) for r in RANKS for lr in (RATES if r else HEAD_RATES)])
    best = {rank_of(run): run.recipe.lr for run in sorted(tuning, key=loss, reverse=True)}
    final = train([recipe(rank, n, best[rank], seed) for n in TEXTS for rank in RANKS for seed in SEEDS])
    longer = train([recipe(1, TUNED_AT, best[1], TUNING_SEED, 2 * PASSES)])
    rows = [
        {"part": part, "rank": rank_of(run), "numbers": run.trainable, "texts": run.recipe.examples,
         "lr": run.recipe.lr, "seed": run.recipe.seed, "loss": round(loss(run), 5),
         "bits": round(run.recipe.examples * (1 - loss(run) / math.log(2)), 1)}
        for part, runs in (("tuning", tuning), ("final", final), ("60 passes", longer)) for run in runs
    ]  # fmt: skip
    write_atomically(path := shipped(FILE), (text := pd.DataFrame(rows).to_csv(index=False)).encode())
    print(f"{path.name}: {len(rows)} runs, {len(text):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

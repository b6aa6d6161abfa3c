"""Train forty seeds of one recipe and write the file that ships: `python docs/seeds.py [STORE]`.

MiniLM on rt, LoRA of rank 8 and alpha 16 on q and v at a learning rate of 2e-3, 200 steps of 8 rows, validated every 25
steps and scored on the 2,000 test rows. It takes about 8 minutes on one idle core. If interrupted, run it again.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from study import study

from lora_lab.experiments.grid import Grid
from lora_lab.experiments.sweep import sweep
from lora_lab.files import read_json, write_atomically, write_json
from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store

SHIPPED = "data/results/sweeps/seeds.zip"
SEEDS = range(40)
DIGITS = 5  # significant digits of losses and rates; more would double the file size


def rounded(value: Any) -> Any:
    """Round floats in JSON values to DIGITS significant digits."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main(store: str = "runs/seeds") -> None:
    """Train missing runs, then write the file that ships."""
    runs = sweep(Grid(rank=8, alpha=16, lr=2e-3, seed=SEEDS), store, steps=200, batch=8, validations=8).runs
    with TemporaryDirectory() as folder:
        small = Store(folder)
        for run in runs:
            small.add_rows(run.recipe, "predictions", np.asarray(run.predictions))
            record = rounded(read_json(Path(store, f"{run.recipe.hash}.json")))
            write_json(Path(folder, f"{run.recipe.hash}.json"), {**record, "adapter": None})
        content = study(Path(folder))
    write_atomically(path := shipped(SHIPPED), content)
    print(f"{path.name}: {len(runs)} runs, {len(content):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

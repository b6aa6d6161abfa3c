"""Train the runs of the playground and write its file: `python docs/playground.py [STORE]`.

540 runs of MiniLM on rt, 200 steps of 8 rows, validated every 25 steps. They take about 80 minutes on two cores. If
interrupted, run it again. Each rank and alpha has twelve rates, half an octave apart, centered on the best rate in
data/results/sweeps: 2^-9.3 at alpha 16, falling as alpha^-0.45, the same at every rank.
"""

import gzip
import json
import math
import sys
from pathlib import Path

from lora_lab.experiments.grid import Grid
from lora_lab.experiments.playground import SHIPPED, read
from lora_lab.experiments.sweep import Sweep
from lora_lab.files import write_atomically
from lora_lab.training.assets import shipped

RANKS, ALPHAS, SEEDS = (1, 8, 64), (1, 4, 16, 64, 256), (0, 1, 2)
RATES = 12


def rates(alpha: float) -> list[float]:
    """Return the rates of one row of the map, such as 1e-3, 1.4e-3, 2e-3. All rows use the same columns."""
    center = -9.3 + 0.45 * math.log2(16 / alpha)
    first = round(2 * (center - math.log2(1e-3)) - (RATES - 1) / 2)
    return [float(f"{1e-3 * 2 ** (step / 2):.2g}") for step in range(first, first + RATES)]


def main(store: str = "runs/playground") -> None:
    """Train missing runs, then write the file that ships."""
    grids = [Grid(rank=RANKS, alpha=alpha, lr=rates(alpha), seed=SEEDS) for alpha in ALPHAS]
    recipes = [r for grid in grids for r in grid.recipes("minilm", "rt", steps=200, batch=8, validations=8)]
    Sweep(store, scored=False).run(recipes)
    playground = read(store)
    assert playground is not None
    results = [result._replace(losses=[round(loss, 4) for loss in result.losses]) for result in playground.results]
    content = json.dumps({**vars(playground), "results": results}, separators=(",", ":"), allow_nan=False) + "\n"
    packed = gzip.compress(content.encode(), mtime=0)
    write_atomically(path := shipped(SHIPPED), packed)
    print(f"{Path(path).name}: {len(playground.results)} runs, {len(packed):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

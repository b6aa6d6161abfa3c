"""The reference of old lesson 13, made anew: what is inside the updates of some runs, and what is left when cut.

    python -m lora_course.experiments.microscope_reference STORE OUT.json

First it trains what the store lacks (`RUNS`), then it looks, unless OUT.json has looked at the same runs already. No
weights are kept in it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lora_course.experiments.inside import amplified, intruding, shared_a, shared_rows, sizes
from lora_course.experiments.intrinsic import DIMENSIONS, dimensions
from lora_course.experiments.microscope import Microscope
from lora_course.experiments.subspace import Intruders, factors, random_like
from lora_course.experiments.truncation import specimen_of
from lora_course.experiments.updates import Update, a_at_start, updates_of
from lora_lab.experiments.sweep import sweep
from lora_lab.files import read_json, write_json
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.training import device
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store

MATCHED = "full, LoRA's loss"
COMMON: dict[str, Any] = {"model": "minilm", "task": "rt", "steps": 400, "batch": 16, "validations": 2, "dtype": "fp32"}
RUNS = {
    "full": Recipe(method=FullFineTuning(), lr=1e-4, **COMMON),
    MATCHED: Recipe(method=FullFineTuning(), lr=1e-4, **{**COMMON, "steps": 200}),  # ends near LoRA's validation loss
    "lora": Recipe(method=LoRA(rank=8), lr=2e-3, **COMMON),
    "lora64": Recipe(method=LoRA(rank=64), lr=2e-3, **COMMON),
    "lora-other-seed": Recipe(method=LoRA(rank=8), lr=2e-3, seed=1, **COMMON),
    "lora64-other-seed": Recipe(method=LoRA(rank=64), lr=2e-3, seed=1, **COMMON),
}
INTRINSIC = Recipe(lr=2e-3, **{**COMMON, "steps": 200, "validations": 0})
PAIRS = {
    "8 in 64, one seed": ("lora", "lora64"),
    "8 in 64, two seeds": ("lora", "lora64-other-seed"),
    "8 in 8, two seeds": ("lora", "lora-other-seed"),
    "64 in 64, two seeds": ("lora64", "lora64-other-seed"),
}
SENTENCES = 500  # the whole validation split
SHOWN = ("layer.5.",)  # whose grids and spectra are kept whole
AMPLIFIED = (1, 4, 8)


def made(
    store: Store,
    runs: Mapping[str, Recipe] = RUNS,
    sentences: int = SENTENCES,
    earlier: Mapping[str, Any] | None = None,
    ds: Sequence[int] = DIMENSIONS,
) -> dict[str, Any]:
    """All of it, as JSON can hold it. `earlier` was made before: its views are taken over where they still hold."""
    sweep(list(runs.values()), store)
    found = {name: run for name, recipe in runs.items() if (run := store.find(recipe)) is not None}
    told = {name: _told(run) for name, run in found.items()}
    same = earlier and all(earlier["runs"].get(name) == told[name] for name in ("full", "lora"))
    views = earlier["views"] if earlier and same else looked(found["full"], found["lora"], sentences)
    points = dimensions(ds, INTRINSIC, store.folder / "intrinsic") if ds else []
    return {
        "environment": found["full"].environment | {"measured": device.environment(device.choose(64))["date"]},
        "runs": told,
        "views": views,
        "intrinsic": {"recipe": INTRINSIC.settings(), "points": [asdict(point) for point in points]},
        **insides({name: updates_of(run) for name, run in found.items()}, runs),
    }


def looked(full: Run, lora: Run, sentences: int) -> dict[str, Any]:
    """The microscope's views of both, of chance, and of both again with nothing but linear layers."""
    whole, thin = (
        specimen_of(n, str(r.adapter), r.recipe.task, r.recipe.model) for n, r in (("full", full), ("LoRA", lora))
    )
    chance = whole.random()
    specimens = [whole, thin, chance, whole.dense(), chance.dense()]
    scope = Microscope(specimens, full.recipe.task, full.recipe.model, count=sentences)
    for _ in scope.all():
        pass
    return scope.views.to_json()


def insides(updates: Mapping[str, Mapping[str, Update]], runs: Mapping[str, Recipe]) -> dict[str, Any]:
    """Sizes, phi, amplification and intruders of the matrices that LoRA adapts."""
    lora = updates["lora"]
    full = {name: updates["full"][name] for name in lora}
    both = {"full": full, "lora": lora}
    tuned = {n: {m: updates[n][m] for m in lora} for n in ("full", MATCHED, "lora") if n in updates}
    return {
        "sizes": {n: _rounded(sizes({m: u[m] for m in lora}).to_dict("records")) for n, u in updates.items()},
        "spectra": {n: {m: _list(u[m].factors.values) for m in u if _shown(m)} for n, u in both.items()},
        "spectrum_by_chance": _list(factors(random_like(next(iter(full.values())).matrix)).values),
        "phi": _phi(updates, runs),
        "amplification": {
            n: {r: {m: _rounded(asdict(a)) for m, a in amplified(u, r).items()} for r in AMPLIFIED}
            for n, u in both.items()
        },
        "intruders": {n: _cosines(intruding(u)) for n, u in tuned.items()}
        | {f"random like {n}": _cosines(intruding(u, by_chance=True)) for n, u in both.items()},
    }


def _phi(updates: Mapping[str, Mapping[str, Update]], runs: Mapping[str, Recipe]) -> dict[str, Any]:
    """Grids of the shown matrices, and of all of them the corner phi(r1, r2), for A and for the rows of B A."""
    a = {name: {m: one.a for m, one in u.items() if one.a is not None} for name, u in updates.items()}
    a = {name: each for name, each in a.items() if each}
    start = {name: a_at_start(runs[name]) for name in a}
    pairs = {name: PAIRS[name] for name in PAIRS if {*PAIRS[name]} <= updates.keys()}
    told: dict[str, Any] = {}
    for name, (one, other) in pairs.items():
        grids = {"A at the start": shared_a(start[one], start[other]), "A": shared_a(a[one], a[other]),
                 "rows of B A": shared_rows(updates[one], updates[other])}  # fmt: skip
        told[name] = {
            of: {"corner": {m: round(float(g[-1, -1]), 4) for m, g in each.items()},
                 "first": {m: round(float(g[0, 0]), 4) for m, g in each.items()},
                 "grids": {m: np.round(g[:8], 3).tolist() for m, g in each.items() if _shown(m)}}
            for of, each in grids.items()
        }  # fmt: skip
    return told


def _told(run: Run) -> dict[str, Any]:
    last = run.history["validation"][-1]
    return {
        "recipe": run.recipe.settings(),
        "hash": run.recipe.hash,
        "metrics": run.metrics,
        "validation": last,
        "seconds": run.seconds,
    }


def _cosines(found: Mapping[str, Intruders]) -> dict[str, list[float]]:
    return {name: _list(one.cosines) for name, one in found.items()}


def _shown(matrix: str) -> bool:
    return any(part in matrix for part in SHOWN)


def _list(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _rounded(value: Any) -> Any:
    """Floats with five digits: it is to be read, not computed with."""
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    out = Path(sys.argv[2])
    write_json(out, made(Store(sys.argv[1]), earlier=read_json(out) if out.is_file() else None))

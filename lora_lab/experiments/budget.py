"""Find the number of steps that fits a time budget, by timing a few real steps of each method.

    seconds(steps) = sum over methods of   packs * load                                  tuning and final runs
                                         + runs * (steps * step + validation)            of tuning, growth included
                                         + runs * (steps * step + test)                  of the final seeds
                                         + runs * afterwards                             forgetting, generated answers

A step's time is that of one run in a pack of the tuning's size. All methods get the same number of steps.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.afterwards import afterwards
from lora_lab.experiments.compare import Terms
from lora_lab.experiments.contenders import label
from lora_lab.experiments.plan import packs
from lora_lab.experiments.sweep import Sweep
from lora_lab.experiments.tuning import SEED, axis_of
from lora_lab.files import remembered
from lora_lab.methods.base import Method
from lora_lab.training.recipe import Recipe

TIMED, WARM = 8, 2  # steps to time, and how many of them are warmup
FEWEST = 10  # steps; fewer make a comparison meaningless
SAFE = 0.8  # share of the time to plan for: smaller packs and rare shapes are slower
FEW = 4  # prompts for timing generation


@dataclass(frozen=True)
class Timing:
    """Seconds of one method: to set up a pack, and of a run's step and validation."""

    load: float
    step: float
    validation: float


def steps_within(
    minutes: float, terms: Terms, methods: Sequence[Method], out: Path, say: Callable[[str], None], *,
    download: bool = False,
) -> int:  # fmt: skip
    """Return the number of steps with which a comparison takes about `minutes` on this machine; cached in `out`.

    Raises: BadValue if fewer than FEWEST steps fit.
    """

    def made() -> dict[str, int]:
        task, tried, fixed, slope = terms.loaded(download), terms.rates + terms.growth, 0.0, 0.0
        tests = len(task.test) / len(task.validation)
        for method in methods:
            axis, base = axis_of(method), terms.recipe(method)
            try:
                pack = packs([axis.set(base, value) for value in axis.grid(terms.rates)])[0]
                one, later = pack_timed(pack, download), _later(terms, pack[0], download)
            except LabError as error:  # the comparison reports it too
                say(f"{label(method)}: not timed: {error}")
                continue
            say(f"{label(method)}: {one.step:.3f} s a step, as one of {len(pack)} side by side")
            fixed += 3 * one.load + tried * one.validation + terms.seeds * (tests * one.validation + later)
            slope += one.step * (tried + terms.seeds)
        if not slope:
            return {"steps": max(FEWEST, terms.steps)}
        steps = int((SAFE * 60 * minutes - fixed) / slope)
        if steps < FEWEST:
            needed = ceil((fixed + FEWEST * slope) / SAFE / 60)
            raise BadValue(
                f"{minutes:g} minutes are too short: {FEWEST} steps take about {needed} minutes; give at least that"
            )
        return {"steps": steps}

    asked = [minutes, asdict(replace(terms, steps=1)), [label(one) for one in methods]]
    name = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    steps = int(remembered(out / "budget" / f"{name}.json", made)["steps"])
    say(f"{steps} steps each, about {minutes:g} minutes in all")
    return steps


def pack_timed(pack: Sequence[Recipe], download: bool = False) -> Timing:
    """Time a run in a pack by a few steps, in a temporary store."""
    pack = [replace(one, steps=TIMED, validations=1, seed=SEED) for one in pack]
    stamps = [time.perf_counter()]

    def note(event: str, facts: dict[str, Any]) -> None:
        if event == "step" and facts["recipe"] == pack[0]:
            stamps.append(time.perf_counter())

    with TemporaryDirectory() as folder:
        swept = Sweep(folder, len(pack), scored=False, note=note, download=download).run(pack)
    if len(stamps) <= WARM + 1:  # it does not train in steps, or in too few
        return Timing(swept.seconds / len(pack), 0.0, 0.0)
    spans = [b - a for a, b in pairwise(stamps)]
    step = median(spans[WARM:-1] or spans[-1:])
    beside = swept.runs[0].environment.get("pack", len(pack))  # 1 if they cannot share a pack
    return Timing(max(0.0, spans[0] - step), step / beside, max(0.0, spans[-1] - step) / beside)


def _later(terms: Terms, recipe: Recipe, download: bool) -> float:
    """Time `afterwards` of a final run, on one short run."""
    if not (terms.forgetting or terms.prompts):
        return 0.0
    with TemporaryDirectory() as folder:
        run = Sweep(folder, download=download).run([replace(recipe, steps=1, validations=0)]).runs[0]
        few = min(FEW, terms.prompts)
        found = afterwards(run, terms.forgetting, few, Path(folder) / "afterwards", download=download)
    return float(found["seconds"]) * (terms.prompts / few if few else 1)

"""Find the number of steps that fits a time budget, by timing a few real steps of each method.

    seconds(steps) = sum over methods of   packs * load                                  for tuning and final runs
                                         + runs * (steps * step + validation)            for tuning, including growth
                                         + runs * (steps * step + test)                  for the final seeds
                                         + runs * afterwards                             for forgetting and generation

`step` is the time of one step per run, in a pack of the size used for tuning. All methods get the same number of steps.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.afterwards import afterwards
from lora_lab.experiments.compare import Terms
from lora_lab.experiments.study import label
from lora_lab.experiments.sweep import Sweep, packs
from lora_lab.experiments.tuning import SEED, axis_of
from lora_lab.files import cached_json
from lora_lab.methods.base import Method
from lora_lab.training.recipe import Recipe

TIMED, WARM = 8, 2  # steps to run, and how many of these are warmup
FEWEST = 10  # steps; fewer make a comparison meaningless
SAFE = 0.8  # fraction of the time to plan for: smaller packs and rare shapes are slower
FEW = 4  # prompts for timing generation


class Timing(NamedTuple):
    """One method's times in seconds: to set up a pack, and per run for a step and a validation."""

    load: float
    step: float
    validation: float


def steps_within(
    minutes: float, terms: Terms, methods: Sequence[Method], out: Path, say: Callable[[str], None], *,
    download: bool = False,
) -> int:  # fmt: skip
    """Return the steps with which a comparison takes about `minutes` here; cached. Raises: BadValue below FEWEST."""

    def compute() -> dict[str, int]:
        task, fixed, slope = terms.loaded(download), 0.0, 0.0
        tuned = terms.tuning_seeds * (terms.rates + terms.growth)
        tests = len(task.test) / len(task.validation)
        for method in methods:
            axis, base, later = axis_of(method), terms.recipe(method), 0.0
            try:
                pack = packs([axis.set(base, value) for value in axis.grid(terms.rates)])[0]
                timing = pack_timed(pack, download)
                if terms.forgetting or terms.prompts:  # time one short run with few prompts
                    with TemporaryDirectory() as folder:
                        short = replace(pack[0], steps=1, validations=0)
                        run = Sweep(folder, download=download).run([short]).runs[0]
                        few = min(FEW, terms.prompts)
                        extra = afterwards(run, terms.forgetting, few, Path(folder) / "afterwards", download=download)
                    later = extra["seconds"] * (terms.prompts / few if few else 1)
            except LabError as error:  # the comparison will report the error too
                say(f"{label(method)}: not timed: {error}")
                continue
            say(f"{label(method)}: {timing.step:.3f} s per step, in a pack of {len(pack)}")
            fixed += 3 * timing.load + tuned * timing.validation + terms.seeds * (tests * timing.validation + later)
            slope += timing.step * (tuned + terms.seeds)
        if not slope:
            return {"steps": max(FEWEST, terms.steps)}
        steps = int((SAFE * 60 * minutes - fixed) / slope)
        if steps < FEWEST:
            needed = ceil((fixed + FEWEST * slope) / SAFE / 60)
            raise BadValue(
                f"{minutes:g} minutes is too short: {FEWEST} steps take about {needed} minutes; allow at least {needed}"
            )
        return {"steps": steps}

    key = [minutes, asdict(replace(terms, steps=1)), [label(method) for method in methods]]
    name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    steps = int(cached_json(out / "budget" / f"{name}.json", compute)["steps"])
    say(f"{steps} steps each, about {minutes:g} minutes in total")
    return steps


def pack_timed(pack: Sequence[Recipe], download: bool = False) -> Timing:
    """Time one run of a pack over a few steps, in a temporary store."""
    pack = [replace(recipe, steps=TIMED, validations=1, seed=SEED) for recipe in pack]
    stamps = [time.perf_counter()]

    def note(event: str, facts: dict[str, Any]) -> None:
        if event == "step" and facts["recipe"] == pack[0]:
            stamps.append(time.perf_counter())

    with TemporaryDirectory() as folder:
        swept = Sweep(folder, len(pack), scored=False, note=note, download=download).run(pack)
    if len(stamps) <= WARM + 1:  # the method does not train in steps, or took too few
        return Timing(swept.seconds / len(pack), 0.0, 0.0)
    spans = [b - a for a, b in pairwise(stamps)]
    step = median(spans[WARM:-1] or spans[-1:])
    shared = swept.runs[0].environment.get("pack", len(pack))  # 1 if the runs cannot share a pack
    return Timing(max(0.0, spans[0] - step), step / shared, max(0.0, spans[-1] - step) / shared)

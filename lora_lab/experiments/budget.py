"""How many steps fit into so many minutes: a few real steps of each method, and arithmetic.

    seconds(steps) = sum over methods of   packs * load                                  tuning and final runs
                                         + runs * (steps * step + validation)            of tuning, growth included
                                         + runs * (steps * step + test)                  of the final seeds
                                         + runs * afterwards                             another text, what is written

A step's seconds are those of one run in a pack as large as the tuning's. All methods then get the same steps.
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

TIMED, WARM = 8, 2  # steps that are taken, and those among them that do not count
LEAST = 10  # steps below which a comparison says nothing
SAFE = 0.8  # share of the time that is planned with: smaller packs and rarer shapes are slower
FEW = 4  # prompts that generating is timed with


@dataclass(frozen=True)
class Timing:
    """Seconds of one method: to lay out a pack; of a run's step, and of its validation."""

    load: float
    step: float
    validation: float


def steps_within(
    minutes: float, terms: Terms, methods: Sequence[Method], out: Path, say: Callable[[str], None], *,
    download: bool = False,
) -> int:  # fmt: skip
    """The steps with which the comparison should take so many minutes on this machine; kept in `out`, for the repeat.

    Raises: BadValue if not even LEAST steps fit.
    """

    def made() -> dict[str, int]:
        task, tried, fixed, slope = terms.loaded(download), terms.rates + terms.growth, 0.0, 0.0
        tests = len(task.test) / len(task.validation)
        for method in methods:
            axis, base = axis_of(method), terms.recipe(method)
            try:
                pack = packs([axis.set(base, value) for value in axis.grid(terms.rates)])[0]
                one, later = pack_timed(pack, download), _later(terms, pack[0], download)
            except LabError as error:  # the comparison will say so too
                say(f"{label(method)}: not timed: {error}")
                continue
            say(f"{label(method)}: {one.step:.3f} s a step, as one of {len(pack)} side by side")
            fixed += 3 * one.load + tried * one.validation + terms.seeds * (tests * one.validation + later)
            slope += one.step * (tried + terms.seeds)
        if not slope:
            return {"steps": max(LEAST, terms.steps)}
        steps = int((SAFE * 60 * minutes - fixed) / slope)
        if steps < LEAST:
            needed = ceil((fixed + LEAST * slope) / SAFE / 60)
            raise BadValue(
                f"{minutes:g} minutes are too few: {LEAST} steps would take about {needed}; give that or more"
            )
        return {"steps": steps}

    asked = [minutes, asdict(replace(terms, steps=1)), [label(one) for one in methods]]
    name = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    steps = int(remembered(out / "budget" / f"{name}.json", made)["steps"])
    say(f"{steps} steps each, so that all of it takes about {minutes:g} minutes")
    return steps


def pack_timed(pack: Sequence[Recipe], download: bool = False) -> Timing:
    """The timing of a run in a pack, from a few steps into a store that is thrown away."""
    pack = [replace(one, steps=TIMED, validations=1, seed=SEED) for one in pack]
    stamps = [time.perf_counter()]

    def note(event: str, facts: dict[str, Any]) -> None:
        if event == "step" and facts["recipe"] == pack[0]:
            stamps.append(time.perf_counter())

    with TemporaryDirectory() as folder:
        swept = Sweep(folder, len(pack), scored=False, note=note, download=download).run(pack)
    if len(stamps) <= WARM + 1:  # it does not train in steps, or not even so many
        return Timing(swept.seconds / len(pack), 0.0, 0.0)
    spans = [b - a for a, b in pairwise(stamps)]
    step = median(spans[WARM:-1] or spans[-1:])
    beside = swept.runs[0].environment.get("pack", len(pack))  # 1 if these cannot share a pack
    return Timing(max(0.0, spans[0] - step), step / beside, max(0.0, spans[-1] - step) / beside)


def _later(terms: Terms, recipe: Recipe, download: bool) -> float:
    """Seconds of what a final run is asked afterwards, from one short run of it."""
    if not (terms.forgetting or terms.prompts):
        return 0.0
    with TemporaryDirectory() as folder:
        run = Sweep(folder, download=download).run([replace(recipe, steps=1, validations=0)]).runs[0]
        few = min(FEW, terms.prompts)
        found = afterwards(run, terms.forgetting, few, Path(folder) / "afterwards", download=download)
    return float(found["seconds"]) * (terms.prompts / few if few else 1)

"""How long training will take here: at once from one layer's speed, or better from a few real steps.

    seconds = packs * load + runs * (steps * step + scoring)        what is not known yet is the number of steps

The quick way counts how many layers of MiniLM's size a model is, by its matrices, and takes `best_speed`;
head, embeddings, optimizer and the gaps between take about 0.6 more (measured). It may be off by a factor of two.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from lora_course.paper.reproduce.base import Plan
from lora_lab.accounting.models import architecture_of
from lora_lab.errors import BadValue
from lora_lab.experiments.budget import LEAST, SAFE, Timing
from lora_lab.experiments.plan import LEAST as LANES
from lora_lab.training import device
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import Task, load_task, typical_tokens

LAYER = 12 * 384**2  # numbers in the matrices of the layer that is timed
BESIDES = 1.6  # the whole step over its layers
FULL = 1.5  # three products a matrix in place of two
LOAD = 5.0  # seconds to lay out a pack, about
ENOUGH, MOST = 100, 400  # steps that are worth a seed less, and beyond which seeds are worth more
ONE_PASS = 377  # steps of 16 that see each training row of rt once, which a finding takes to be tested
SEEDS = (5, 4, 3, 2)  # one says nothing of others
WRITING = 2.0  # seconds of an answer that a small language model writes, about


def quick(recipe: Recipe) -> Timing:
    """The timing of one lane, from the machine's speed. Raises: BadValue, NotFound for what is not there."""
    task = load_task(recipe.task, max_length=recipe.max_length)
    tokens = typical_tokens(task)
    seconds = _layers(recipe.model, task) * BESIDES / best_speed(device.pick_device())  # a token
    step = recipe.batch * tokens * seconds * (FULL if recipe.method.trains_base else 1.0)
    return Timing(LOAD, step, len(task.validation) * tokens * seconds / 3)


@cache
def best_speed(where: str) -> float:
    """Tokens a second through one layer of MiniLM's size, forward and back, in rows of 32 and a step of 4,096."""
    choice = device.choose(32, device=where)
    return 4096 / device.time_layer(where, choice.torch_dtype, choice.attention, 32, total=4096)


def sized(recipes: int, minutes: float, timing: Timing, task: Task, enough: int = ENOUGH, most: int = MOST) -> Plan:
    """Steps and seeds of so many different recipes: as many seeds as leave enough steps. Raises: as `within`."""
    tests = len(task.test) / len(task.validation) * timing.validation

    def with_seeds(seeds: int) -> tuple[dict[str, int], float, float]:
        runs = seeds * recipes
        return {"seeds": seeds}, (1 + runs // LANES) * timing.load + runs * tests, runs * timing.step

    return within(minutes, map(with_seeds, SEEDS), enough, most)


def within(minutes: float, ladder: Iterable[tuple[dict[str, int], float, float]], enough: int, most: int) -> Plan:
    """The first sizes that leave enough steps, else the last, each with its seconds without a step and of a step.

    enough    steps that are worth a seed or a rate less; most: beyond which none is taken
    Raises: BadValue where not even LEAST steps fit.
    """
    for sizes, fixed, slope in ladder:
        steps = int((SAFE * 60 * minutes - fixed) / max(slope, 1e-9))
        made = {"steps": min(steps, most), **sizes}
        if steps >= enough:
            break
    if steps < LEAST:
        needed = (fixed + LEAST * slope) / SAFE / 60
        raise BadValue(
            f"{minutes:g} minutes are too few on this machine: {LEAST} steps of two seeds take about {needed:.1f}"
        )
    return Plan(made, fixed + made["steps"] * slope)


def _layers(model: str, task: Task) -> float:
    """How many layers of the timed one's size the matrices are; a language model's head is one of them."""
    architecture = architecture_of(model, task.num_labels)
    matrices = sum(m.weight * m.count for m in architecture.modules if m.kind in ("linear", "expert"))
    return float(matrices / LAYER)

"""A run of the paper before it is made: its hyperparameters and their sources, steps, memory, time, what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_course.paper.protocol import sizes
from lora_course.paper.protocol.given import Given, PaperRecipe
from lora_course.paper.protocol.made import labels_of, method_of, steps_of
from lora_course.paper.protocol.missing import Missing, missing, task_at
from lora_course.paper.protocol.sheets import recipes
from lora_lab.accounting.gpus import UTILISATION, Card, card, seconds, usable
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import config_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import GIB
from lora_lab.training.tasks import Task

CARD = "A100 40 GB"
LIKE = {"deberta-v2": "roberta"}  # modelled as if it were; its relative positions come on top


@dataclass(frozen=True)
class Dry:
    """What a run would be.

    recipe      the hyperparameters
    rows        training rows, and where the number comes from
    steps       updates of one run
    trainable   parameters that train, without the head, as the paper counts them
    card        the GPU that the prediction is for, in `dtype`, at `utilisation` of its published peak
    memory      bytes of a step's peak on each GPU with its own rows, all of them `max_length` tokens long; `at_least`
                where the accountant lacks a part of the model
    together    the same where one GPU holds all rows of an update, as a run here does
    seconds     of one seed's training on one such GPU, every row padded to `max_length` as the paper's code pads it;
                scoring is not in it
    missing     what this machine lacks for it
    """

    recipe: PaperRecipe
    rows: Given
    steps: int
    trainable: int
    card: str
    dtype: str
    utilisation: float
    memory: int
    together: int
    usable: int
    seconds: float
    at_least: bool
    missing: tuple[Missing, ...]

    @property
    def fits(self) -> bool:
        """Whether one GPU holds the step of all rows."""
        return self.together <= self.usable

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        own = {name: value for name, value in vars(self).items() if name not in ("recipe", "rows", "missing")}
        rows = {"value": self.rows.value, "source": self.rows.source}
        return {
            **self.recipe.to_json(), **own, "rows": rows, "fits": self.fits, "seeds_seconds": self.all_seconds,
            "missing": [vars(one) for one in self.missing],
        }  # fmt: skip

    @property
    def all_seconds(self) -> float:
        """Seconds of all the seeds that the paper ran."""
        return self.seconds * int(self.recipe["seeds"])

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def plan(
    table: str,
    *,
    variant: str = "paper",
    model: str | None = None,
    task: str | None = None,
    row: str | None = None,
    model_path: str | None = None,
    data: str | Path | None = None,
    gpu: str = CARD,
    dtype: str = "bf16",
    utilisation: float = UTILISATION,
) -> list[Dry]:
    """What the runs of a table would be; nothing is trained and nothing is downloaded.

    variant            "paper" for its tables of hyperparameters, "repo" for its authors' scripts
    model, task, row   only these
    model_path, data   where model and data are to be found, for `missing` and for the number of rows
    gpu, dtype         what memory and time are predicted for, a card of accounting/gpus and the base's dtype
    utilisation        share of the card's published peak that is reached
    Raises: NotFound, BadValue as `recipes` and `card`.
    """
    where, asked = card(gpu), recipes(table, variant=variant, model=model, task=task, row=row)
    there = {name: task_at(next(r for r in asked if r.task == name), data) for name in {r.task for r in asked}}
    return [_dry(recipe, model_path, there[recipe.task], where, dtype, utilisation) for recipe in asked]


def _dry(
    recipe: PaperRecipe, model_path: str | None, task: Task | str, where: Card, dtype: str, utilisation: float
) -> Dry:
    rows = _rows(recipe, task)
    steps = steps_of(recipe, rows.value)
    labels = labels_of(recipe)
    method, config = method_of(recipe), config_of(recipe.model)
    like = None
    if config["model_type"] in LIKE:
        positions = config["max_position_embeddings"] + 2  # RoBERTa keeps two for padding
        like = config | {"model_type": LIKE[config["model_type"]], "max_position_embeddings": positions}
    own, together = (
        estimate(like or recipe.model, method, _setup(recipe, batch, dtype), num_labels=labels or 2)
        for batch in (recipe["batch"], recipe.batch)
    )
    return Dry(
        recipe=recipe, rows=rows, steps=steps, trainable=params(recipe.model, method).trainable,
        card=where.name, dtype=dtype, utilisation=utilisation, memory=own.peak, together=together.peak,
        usable=usable(where), seconds=seconds(steps * (together.flops or 0), where, utilisation, dtype),
        at_least=like is not None, missing=missing(recipe, model_path, task),
    )  # fmt: skip


def _rows(recipe: PaperRecipe, task: Task | str) -> Given:
    if isinstance(task, Task):
        return Given(len(task.train), "counted in the data given")
    return Given(sizes.TRAIN[recipe.task], sizes.source(recipe.task))


def _setup(recipe: PaperRecipe, batch: int, dtype: str) -> Setup:
    """A step with the longest rows that there may be. With its own dropout on, the base has BERT's usual 0.1."""
    dropout = 0.1 * bool(recipe["base_dropout"])
    return Setup(
        batch=batch, seq=recipe["max_length"], dtype=dtype, optimizer="adamw-fused", padded=True, dropout=dropout
    )


def _lines(dry: Dry) -> Iterator[str]:
    recipe, least = dry.recipe, "at least " if dry.at_least else ""
    yield recipe.title
    for name, given in recipe.settings.items():
        yield f"  {name:16} {given}"
    yield f"  {'rows':16} {dry.rows.value:,} ({dry.rows.source})"
    yield f"  {'steps':16} {dry.steps:,} ({recipe['epochs']} epochs of {recipe.batch} rows an update)"
    yield f"  {'trainable':16} {dry.trainable:,} without the head, as the paper counts"
    gpus = recipe.get("gpus", 1)
    own = f"{least}{dry.memory / GIB:.1f} GiB with {recipe['batch']} rows of {recipe['max_length']} tokens"
    more = f"; {least}{dry.together / GIB:.1f} GiB with all {recipe.batch} on one" if gpus > 1 else ""
    room = f"{dry.dtype} base; {dry.usable / GIB:.1f} GiB of one {dry.card} are usable"
    yield f"  {'memory per GPU':16} {own}{more} ({room})"
    yield (
        f"  {'time':16} {least}{_hours(dry.seconds)} a seed, {_hours(dry.all_seconds)} for {recipe['seeds']} seeds on "
        f"one {dry.card} at {dry.utilisation:.0%} of its peak, rows padded to full length, without scoring"
    )
    yield f"  {'published':16} {', '.join(f'{name} {value}' for name, value in recipe.published.items()) or 'nothing'}"
    if recipe.expected:
        yield f"  {'expected':16} {recipe.expected}"
    yield from (f"  {'note':16} {note}" for note in recipe.notes)
    yield from (f"  {'missing':16} {one}" for one in dry.missing)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"

"""The paper's run for real, on a model and data that the user has: every seed into a store, then beside the paper.

OUT/HASH.json, HASH/            a run and its adapter, as in any store; a broken-off one goes on where it was
OUT/HASH/answers.json           what a language model said, and its scores
OUT/protocol-TABLE-TASK.json    the result
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_course.paper.protocol import sizes
from lora_course.paper.protocol.given import PaperRecipe
from lora_course.paper.protocol.made import batches_of, decoding_of, method_of, not_run, steps_of, warmup_of
from lora_course.paper.protocol.missing import task_name
from lora_course.paper.protocol.result import Result, of_seed
from lora_course.paper.protocol.sheets import recipes as known
from lora_lab.accounting.models import architecture_of
from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.generation import scored
from lora_lab.experiments.sweep import Sweep
from lora_lab.experiments.text_scores import check_installed
from lora_lab.files import read_json, write_json
from lora_lab.training.generate import Decoding
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run
from lora_lab.training.tasks import Task, load_task
from lora_lab.training.train import open_adapter

ALWAYS = (
    "rows of a batch are like in length and padded to the longest of them, the paper's code pads all to max_length",
    "weight decay takes the head's biases too, and the rate's rise begins with its first step rather than with 0",
)


def run(
    table: str,
    *,
    model_path: str,
    data: str | Path,
    out: str | Path,
    task: str | None = None,
    model: str | None = None,
    row: str = "LoRA",
    variant: str = "paper",
    seeds: int | Sequence[int] | None = None,
    steps_limit: int | None = None,
    start: str = "",
    max_length: int | None = None,
    prompts: int | None = None,
    decoding: Decoding | None = None,
    stop: threading.Event | None = None,
    download: bool = False,
    **where: Any,
) -> Result:
    """Train and score as the paper did. What the store in `out` has is not made again.

    table, model, task, row, variant   which recipe; the table's first model and task where they are not named
    model_path, data   a folder or hub id of the model, the folder of the data (see `glue.py`, `e2e.py`)
    seeds              how many, or which; as many as the paper ran when None
    steps_limit        stop after so many updates, the rate's rise and fall within them: a rehearsal
    start              the folder of the MNLI run's adapter, for the tasks that begin from it
    max_length         in place of the recipe's
    prompts, decoding  score the first so many of the test's meanings only, and decode otherwise than the recipe
    stop               set it to end after the present step; called again, the run goes on
    where              device, dtype, attention
    Raises: NotFound, BadValue for what is not there or cannot be, before anything is trained.
    """
    _check_counts(seeds=seeds, steps_limit=steps_limit, max_length=max_length, prompts=prompts)
    recipe = known(table, variant=variant, model=model, task=task, row=row)[0]
    if why := not_run(recipe):
        raise BadValue(f"{recipe.title} is planned here but not run: {why}")
    if recipe.task == "e2e":
        check_installed()
    if start and not recipe.warm:
        raise BadValue(f"{recipe.title} does not start from another adapter: leave out start")
    name, length = task_name(recipe, str(data)), max_length or recipe["max_length"]
    there = load_task(name, max_length=length, download=download)
    full = steps_of(recipe, len(there.train))
    steps = min(full, steps_limit or full)
    method = method_of(recipe)
    recipes = [
        Recipe(model_path, name, method, steps=steps, seed=seed, start=start, max_length=length,
               **_settings(recipe, len(there.train), steps), **where)
        for seed in _seeds(recipe, seeds)
    ]  # fmt: skip
    swept = Sweep(out, size=1, stop=stop, download=download).run(recipes)
    ended = [made for made in swept.runs if made.status in FINISHED]
    say = decoding or (decoding_of(recipe) if recipe.task == "e2e" else None)
    answers = [_answers(made, name, there, prompts, say, where, download) if say else {} for made in ended]
    result = Result(
        recipe, model_path, str(data), steps, full,
        tuple(of_seed(made, recipe.chosen_by, answer) for made, answer in zip(ended, answers, strict=True)),
        (*_deviations(recipe, model_path, there, recipes, full, prompts, say), *ALWAYS),
        {made.recipe.seed: made.error or made.status for made in swept.runs if made.status not in FINISHED},
    )  # fmt: skip
    write_json(Path(out) / f"protocol-{table}-{recipe.task}.json", result.to_json())
    return result


def _check_counts(**counts: int | Sequence[int] | None) -> None:
    """Raises: BadValue for a number below 1, which would else be read as "all of them"; for a list that is empty."""
    for name, count in counts.items():
        if count is not None and (count if isinstance(count, int) else len(count)) < 1:
            raise BadValue(f"{name} must be at least 1, not {count}; leave it out for what the paper took")


def _seeds(recipe: PaperRecipe, seeds: int | Sequence[int] | None) -> Sequence[int]:
    asked = recipe["seeds"] if seeds is None else seeds
    return range(asked) if isinstance(asked, int) else asked


def _settings(recipe: PaperRecipe, rows: int, steps: int) -> dict[str, Any]:
    """The recipe's hyperparameters as `Recipe` has them; validated after each epoch, or once in less than one."""
    full = steps_of(recipe, rows)
    return {
        "lr": recipe["lr"],
        "batch": recipe.batch,
        "warmup": warmup_of(recipe, full),
        "weight_decay": recipe["weight_decay"],
        "clip": recipe["clip"],
        "dropout": recipe["base_dropout"],
        "label_smoothing": recipe["label_smoothing"],
        "token_mean": recipe.get("loss_over") == "tokens",
        "validations": max(1, round(steps / batches_of(recipe, rows))),
    }


# ---- what a language model says


def _answers(
    run: Run, name: str, task: Task, prompts: int | None, say: Decoding, where: Mapping[str, Any], download: bool
) -> dict[str, float]:
    """The scores of a run's answers to the test's first meanings; kept beside its adapter, and not made twice."""
    assert run.adapter is not None
    count = min(prompts or len(task.test), len(task.test))
    asked = {"prompts": count, "decoding": asdict(say)}
    file = Path(run.adapter) / "answers.json"
    if file.is_file() and (kept := read_json(file)).get("asked") == asked:
        return dict(kept["scores"])
    opened = open_adapter(
        run.adapter, name, model=run.recipe.model, max_length=task.max_length, download=download,
        dtype=where.get("dtype", "auto"), attention=where.get("attention", "auto"),
        device_name=where.get("device", "auto"),
    )  # fmt: skip
    found = scored(opened.model, opened.tokenizer, opened.task, count, say)
    scores = {name: float(value) for name, value in found.items() if name not in ("kinds", "texts")}
    write_json(file, {"asked": asked, "scores": scores, "kinds": found["kinds"], "texts": found["texts"]})
    return scores


# ---- in what this is not the paper's run


def _deviations(
    recipe: PaperRecipe, model_path: str, task: Task, recipes: Sequence[Recipe], full: int, prompts: int | None,
    say: Decoding | None,
) -> Iterator[str]:  # fmt: skip
    first, rows = recipes[0], len(task.train)
    if not _same_model(model_path, recipe.model):
        yield f"the model in {model_path} is not {recipe.model}: its figures do not compare with the paper's"
    if rows != sizes.TRAIN[recipe.task]:
        yield f"the training data has {rows:,} rows, the published one {sizes.TRAIN[recipe.task]:,}"
    if first.steps < full:
        yield f"{first.steps:,} of {full:,} steps, the rate's rise and fall within them"
    if recipe.warm and not first.start:
        yield f"it starts anew and not from {recipe.warm}'s adapter"
    if first.max_length != recipe["max_length"]:
        yield f"texts are cut to {first.max_length} tokens, not {recipe['max_length']}"
    if len(recipes) < recipe["seeds"]:
        yield f"{len(recipes)} of {recipe['seeds']} seeds"
    if say is not None:
        yield from _otherwise_said(recipe, task, prompts, say)


def _otherwise_said(recipe: PaperRecipe, task: Task, prompts: int | None, say: Decoding) -> Iterator[str]:
    paper = decoding_of(recipe)
    for name, value in asdict(say).items():
        if value != getattr(paper, name):
            yield f"answers are decoded with {name} {value}, not {getattr(paper, name)}"
    if prompts is not None and prompts < len(task.test):
        yield f"answers to the first {prompts} of {len(task.test)} meanings of the test file are scored"
    yield "the last epoch's adapter answers; the paper took the best epoch's"


def _same_model(path: str, name: str) -> bool:
    """Whether the model in a folder has the layers and the sizes of the one that the recipe names."""
    try:
        return architecture_of(path).modules == architecture_of(name).modules
    except LabError:
        return False

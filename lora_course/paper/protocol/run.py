"""The paper's run for real, on a model and data that the user has: every seed into a store, then beside the paper.

OUT/HASH.json, HASH/            a run and its adapter, as in any store; an interrupted one continues
OUT/HASH/answers.json           what a language model said, and its scores
OUT/protocol-TABLE-TASK.json    the result
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from lora_course.paper.protocol.plan import DEBERTA, NOT_RUN, method_of, steps_of, task_name
from lora_course.paper.protocol.recipes import FACTS, PaperRecipe
from lora_course.paper.protocol.recipes import recipes as known
from lora_lab.accounting.models import architecture_of
from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.generation import scored
from lora_lab.experiments.sweep import Sweep
from lora_lab.experiments.text_scores import check_installed
from lora_lab.files import read_json, write_json
from lora_lab.metrics import factor
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
) -> dict[str, Any]:
    """Train and score as the paper did; runs that are in the store `out` are not made again. Returns plain values.

    table, model, task, row, variant   which recipe; the table's first model and task if they are not given
    model_path, data   a folder or hub id of the model, the folder of the data (see `glue.py`, `e2e.py`)
    seeds              how many, or which; as many as in the paper when None
    steps_limit        stop after so many updates, with the whole schedule within them: a rehearsal
    start              the folder of the MNLI run's adapter, for the tasks that begin from it
    prompts, decoding  score only so many of the test's meanings; decode otherwise than the recipe
    stop               set it to end after the present step; the same call continues
    where              device, dtype, attention
    Raises: NotFound, BadValue for what is not there or cannot be, before anything is trained.
    """
    for name, count in {
        "seeds": seeds,
        "steps_limit": steps_limit,
        "max_length": max_length,
        "prompts": prompts,
    }.items():
        if count is not None and (count if isinstance(count, int) else len(count)) < 1:
            raise BadValue(f"{name} must be at least 1, not {count}; leave it out for what the paper took")
    recipe = known(table, variant=variant, model=model, task=task, row=row)[0]
    if recipe.model == DEBERTA:
        raise BadValue(f"{recipe.title} is planned here but not run: {NOT_RUN}")
    if recipe.task == "e2e":
        check_installed()
    if start and not recipe.warm:
        raise BadValue(f"{recipe.title} does not start from another adapter: leave out start")
    name, length = task_name(recipe, data), max_length or recipe["max_length"]
    there = load_task(name, max_length=length, download=download)
    full = steps_of(recipe, len(there.train))
    steps = min(full, steps_limit or full)
    settings = _settings(recipe, full, steps)
    asked = recipe["seeds"] if seeds is None else seeds
    recipes = [
        Recipe(model_path, name, method_of(recipe), seed=seed, start=start, max_length=length, **settings, **where)
        for seed in (range(asked) if isinstance(asked, int) else asked)
    ]
    swept = Sweep(out, size=1, stop=stop, download=download).run(recipes)
    decoding = (decoding or _decoding(recipe)) if recipe.task == "e2e" else None
    found = [
        _of_seed(made, recipe, _answers(made, name, there, prompts, decoding, where, download) if decoding else {})
        for made in swept.runs
        if made.status in FINISHED
    ]
    result = {
        "recipe": recipe.to_json(), "model_path": model_path, "data": str(data), "steps": steps, "full_steps": full,
        "over_seeds": [_over_seeds(recipe, metric, found) for metric in recipe.metrics],
        "deviations": [*_deviations(recipe, model_path, there, recipes, full, prompts, decoding), *ALWAYS],
        "failed": {str(one.recipe.seed): one.error or one.status for one in swept.runs if one.status not in FINISHED},
        "seeds": found,
    }  # fmt: skip
    write_json(Path(out) / f"protocol-{table}-{recipe.task}.json", result)
    return result


def _settings(recipe: PaperRecipe, full: int, steps: int) -> dict[str, Any]:
    """The hyperparameters as `Recipe` has them; validated after each epoch, or once in less than one."""
    warmup = recipe["warmup_steps"] / full if "warmup_steps" in recipe.settings else recipe["warmup_ratio"]
    return {
        "lr": recipe["lr"], "steps": steps, "batch": recipe.batch, "warmup": min(1.0, warmup),
        "weight_decay": recipe["weight_decay"], "clip": recipe["clip"], "dropout": recipe["base_dropout"],
        "label_smoothing": recipe["label_smoothing"], "token_mean": recipe.get("loss_over") == "tokens",
        "validations": max(1, round(steps * recipe["epochs"] / full)),
    }  # fmt: skip


def _decoding(recipe: PaperRecipe) -> Decoding:
    return Decoding(recipe["beams"], recipe["length_penalty"], recipe["no_repeat_ngram"], recipe["max_new_tokens"])


def _answers(
    run: Run, name: str, task: Task, prompts: int | None, decoding: Decoding, where: Mapping[str, Any], download: bool
) -> dict[str, float]:
    """The scores of a run's answers to the test's first meanings; kept beside its adapter, and not made twice."""
    assert run.adapter is not None
    count = min(prompts or len(task.test), len(task.test))
    asked = {"prompts": count, "decoding": asdict(decoding)}
    file = Path(run.adapter) / "answers.json"
    if file.is_file() and (kept := read_json(file)).get("asked") == asked:
        return dict(kept["scores"])
    opened = open_adapter(
        run.adapter, name, model=run.recipe.model, max_length=task.max_length, download=download,
        dtype=where.get("dtype", "auto"), attention=where.get("attention", "auto"),
        device_name=where.get("device", "auto"),
    )  # fmt: skip
    found = scored(opened.model, opened.tokenizer, opened.task, count, decoding)
    scores = {name: float(value) for name, value in found.items() if name not in ("kinds", "texts")}
    write_json(file, {"asked": asked, "scores": scores, "kinds": found["kinds"], "texts": found["texts"]})
    return scores


def _of_seed(run: Run, recipe: PaperRecipe, answers: Mapping[str, float]) -> dict[str, Any]:
    """A run as the paper reads it, without any text of the data.

    best   the epoch with the best dev figure, which is what the paper reports; so chosen it is a little too good
    last   the last epoch: nothing was chosen by the figure itself
    """
    epochs = [row for row in run.history["validation"] if row["step"]]
    chosen_by, sign = ("perplexity", -1) if recipe.task == "e2e" else (recipe.metrics[0], 1)
    kept = {name: getattr(run, name) for name in ("adapter_parameters", "head_parameters", "seconds", "peak_bytes")}
    return {
        "seed": run.recipe.seed, "hash": run.recipe.hash, "settings": run.recipe.settings(), **kept,
        "best": max(epochs, key=lambda epoch: sign * epoch[chosen_by]), "last": epochs[-1], "answers": dict(answers),
        "validation": run.history["validation"], "environment": run.environment, "warnings": run.warnings,
    }  # fmt: skip


def _over_seeds(recipe: PaperRecipe, metric: str, seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's figure; over seeds GLUE's median or E2E's mean, and the deviation. Answers are of the last epoch."""
    row: dict[str, Any] = {"metric": metric, "published": recipe.published.get(metric), "seeds": len(seeds)}
    middle = fmean if recipe.task == "e2e" else median
    for which in ("best", "last"):
        if recipe.task == "e2e":
            values = [one["answers"][metric] for one in seeds if metric in one["answers"] and which == "last"]
        else:
            values = [factor(metric) * one[which][metric] for one in seeds]
        row |= {which: middle(values) if values else None, f"{which}_std": stdev(values) if len(values) > 1 else None}
    return row


def _deviations(
    recipe: PaperRecipe, model_path: str, task: Task, recipes: Sequence[Recipe], full: int, prompts: int | None,
    decoding: Decoding | None,
) -> Iterator[str]:  # fmt: skip
    """How this was not the paper's run."""
    first, rows, published = recipes[0], len(task.train), FACTS["tasks"][recipe.task]["rows"]
    if not _same_model(model_path, recipe.model):
        yield f"the model in {model_path} is not {recipe.model}: its figures do not compare with the paper's"
    if rows != published:
        yield f"the training data has {rows:,} rows, the published one {published:,}"
    if first.steps < full:
        yield f"{first.steps:,} of {full:,} steps, the rate's rise and fall within them"
    if recipe.warm and not first.start:
        yield f"it starts anew and not from {recipe.warm}'s adapter"
    if first.max_length != recipe["max_length"]:
        yield f"texts are cut to {first.max_length} tokens, not {recipe['max_length']}"
    if len(recipes) < recipe["seeds"]:
        yield f"{len(recipes)} of {recipe['seeds']} seeds"
    if decoding is not None:
        paper = asdict(_decoding(recipe))
        for name, value in asdict(decoding).items():
            if value != paper[name]:
                yield f"answers are decoded with {name} {value}, not {paper[name]}"
        if prompts is not None and prompts < len(task.test):
            yield f"answers to the first {prompts} of {len(task.test)} meanings of the test file are scored"
        yield "the last epoch's adapter answers; the paper took the best epoch's"


def _same_model(path: str, name: str) -> bool:
    """Whether the model in a folder has the layers and sizes of the one that the recipe names."""
    try:
        return architecture_of(path).modules == architecture_of(name).modules
    except LabError:
        return False


def result_in_words(result: Mapping[str, Any]) -> str:
    """The published figures beside the best and the last epoch, and how this was not the paper's run."""
    recipe = result["recipe"]
    lines = [
        f"{recipe['table']}: {recipe['row']}, {recipe['model']}, {recipe['task']} ({recipe['variant']}): "
        f"{result['steps']:,} of {result['full_steps']:,} steps, {len(result['seeds'])} seeds",
        f"  {'':12}{'published':>12}{'best epoch':>16}{'last epoch':>16}",
    ]
    for row in result["over_seeds"]:
        best, last = (_cell(row[which], row[f"{which}_std"]) for which in ("best", "last"))
        lines.append(f"  {row['metric']:12}{row['published'] or '-':>12}{best:>16}{last:>16}")
    lines.append(
        "  best epoch on the dev set is what the paper reports; the last is what one gets without choosing by it"
    )
    shown = [f"{name} {value}" for name, value in recipe["published"].items() if name not in recipe["metrics"]]
    lines += [f"  published only: {', '.join(shown)}"] if shown else []
    lines += [f"  expected of a rerun: {recipe['expected']}"] if recipe["expected"] else []
    lines += [f"  not the paper's: {one}" for one in result["deviations"]]
    lines += [f"  seed {seed} failed: {reason}" for seed, reason in result["failed"].items()]
    return "\n".join(lines)


def _cell(value: float | None, std: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if std is None else f"±{std:.2f}")

"""A run of the paper before it is made: steps, parameters, memory, time, and what this machine lacks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_course.paper.protocol.recipes import FACTS, Given, PaperRecipe, recipes
from lora_lab.accounting.gpus import UTILISATION, card, seconds, usable
from lora_lab.accounting.memory import estimate
from lora_lab.accounting.models import config_of
from lora_lab.accounting.params import params
from lora_lab.accounting.setup import Setup
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.text_scores import missing_packages
from lora_lab.methods.base import Method
from lora_lab.methods.bottleneck import Bottleneck
from lora_lab.methods.full import FullFineTuning
from lora_lab.methods.lora import LoRA
from lora_lab.training.models import BUNDLED, load_tokenizer
from lora_lab.training.tasks import Task, load_task

DEBERTA = "deberta-v2-xxlarge"
NOT_RUN = "DeBERTa's classifier has a random pooler that must train with the head, and this lab trains the head alone"


def plan(
    table: str,
    *,
    variant: str = "paper",
    model: str | None = None,
    task: str | None = None,
    row: str | None = None,
    model_path: str | None = None,
    data: str | Path | None = None,
    gpu: str = "A100 40 GB",
    dtype: str = "bf16",
    utilisation: float = UTILISATION,
) -> list[dict[str, Any]]:
    """What the runs of a table would be, as plain values; nothing is trained and nothing is downloaded.

    model_path, data   where model and data are, for `missing` and for the number of rows
    gpu, dtype         what memory and time are predicted for, at `utilisation` of the card's published peak
    Each plan is the recipe and: rows, steps; trainable (without the head, as the paper counts); memory (peak bytes on
    each GPU, all rows `max_length` tokens long), together (one GPU holds all rows of an update, as a run here does),
    fits (that on one GPU), at_least (whether these are lower bounds); seconds of one seed and of all; missing.
    Raises: NotFound, BadValue as `recipes` and `card`.
    """
    where, asked = card(gpu), recipes(table, variant=variant, model=model, task=task, row=row)
    there = {one.task: task_at(one, data) for one in {r.task: r for r in asked}.values()}
    plans = []
    for recipe in asked:
        rows, method = _rows(recipe, there[recipe.task]), method_of(recipe)
        steps = steps_of(recipe, rows.value)
        own, together = (_estimate(recipe, method, batch, dtype) for batch in (recipe["batch"], recipe.batch))
        one_seed = seconds(steps * (together.flops or 0), where, utilisation, dtype)
        found = {
            "rows": rows._asdict(), "steps": steps, "trainable": params(recipe.model, method).trainable,
            "card": where.name, "dtype": dtype, "utilisation": utilisation, "memory": own.peak,
            "together": together.peak, "usable": usable(where), "fits": together.peak <= usable(where),
            "at_least": recipe.model == DEBERTA, "seconds": one_seed, "seeds_seconds": one_seed * recipe["seeds"],
            "missing": list(_missing(recipe, model_path, there[recipe.task])),
        }  # fmt: skip
        plans.append({**recipe.to_json(), **found})
    return plans


def method_of(recipe: PaperRecipe) -> Method:
    """What trains."""
    if recipe.row == "FT":
        return FullFineTuning()
    if recipe.get("placement"):
        return Bottleneck(recipe["size"], recipe["placement"])
    return LoRA(recipe["rank"], recipe["alpha"], tuple(recipe["targets"]), recipe.get("lora_dropout", 0.0))


def steps_of(recipe: PaperRecipe, rows: int) -> int:
    """Updates: an epoch's last, smaller batch is one of them. Raises: BadValue for no rows."""
    if rows < 1:
        raise BadValue(f"{recipe.task} has no rows to train on: its train file is missing or empty")
    return int(recipe["epochs"]) * -(-rows // recipe.batch)


def task_name(recipe: PaperRecipe, data: str | Path) -> str:
    """The data as `load_task` takes them: a folder for E2E, glue:TASK:FOLDER for GLUE."""
    return str(data) if recipe.task == "e2e" else f"glue:{recipe.task}:{data}"


def task_at(recipe: PaperRecipe, data: str | Path | None) -> Task | str:
    """The task in a folder, or why there is none."""
    if data is None:
        return "no folder is named"
    try:
        found = load_task(task_name(recipe, data), max_length=recipe["max_length"])
    except LabError as error:
        return str(error)
    return found if len(found.train) else "its train file is not there"


def _rows(recipe: PaperRecipe, task: Task | str) -> Given:
    if isinstance(task, Task):
        return Given(len(task.train), "counted in the data given")
    about, sources = FACTS["tasks"][recipe.task], FACTS["sources"]
    source = sources["e2e"] if recipe.task == "e2e" else sources["glue"]
    sure = recipe.task == "e2e" or about.get("counted")
    return Given(about["rows"], source if sure else source + sources["rounded"])


def _estimate(recipe: PaperRecipe, method: Method, batch: int, dtype: str) -> Any:
    """A step with the longest rows. With its own dropout on, the base has BERT's usual 0.1.

    DeBERTa is modeled as a RoBERTa, which keeps two positions for padding; its relative positions come on top.
    """
    model: Any = recipe.model
    if model == DEBERTA:
        config = config_of(model)
        model = config | {"model_type": "roberta", "max_position_embeddings": config["max_position_embeddings"] + 2}
    setup = Setup(batch=batch, seq=recipe["max_length"], dtype=dtype, optimizer="adamw-fused", padded=True,
                  dropout=0.1 * bool(recipe["base_dropout"]))  # fmt: skip
    return estimate(model, method, setup, num_labels=FACTS["tasks"][recipe.task]["labels"] or 2)


def _missing(recipe: PaperRecipe, path: str | None, task: Task | str) -> Iterator[dict[str, str]]:
    """What a run lacks here, and how to bring it."""
    import torch

    if recipe.model == DEBERTA:
        yield {"what": "code", "bring": f"{NOT_RUN}; use the authors' own for this model"}
    lacks = "no folder is named" if path is None else ""
    if path is not None and path not in BUNDLED:
        try:
            load_tokenizer(path)
        except LabError as error:
            lacks = str(error)
    if lacks:
        hub = FACTS["models"][recipe.model]["hub"]
        bring = f"{lacks}; on a machine with the network fetch {hub} (config.json, model.safetensors, the tokenizer's "
        yield {
            "what": f"the model {recipe.model}",
            "bring": f"{bring}files) into a folder and give it with --model-path",
        }
    e2e = recipe.task == "e2e"
    if isinstance(task, str):
        files = "trainset.csv, devset.csv, testset_w_refs.csv" if e2e else "train.tsv, dev.tsv"
        name = "E2E (Novikova et al. 2017)" if e2e else f"GLUE's {recipe.task} (Wang et al. 2018)"
        bring = f"{task}; put the standard download ({files}) into a folder and give it with --data"
        yield {"what": name, "bring": bring}
    for package in missing_packages() if e2e else ():
        yield {"what": f"the package {package}", "bring": "pip install 'lora-lab[metrics]'"}
    if not torch.cuda.is_available():
        bring = "the run would start on this CPU, but not end in a useful time: use one with CUDA"
        yield {"what": "a GPU", "bring": bring}


def plan_in_words(one: dict[str, Any]) -> str:
    """A plan as a table of two columns."""
    settings = {name: Given(**given) for name, given in one["settings"].items()}
    batch, gpus, seeds = settings["batch"].value, settings.get("gpus", Given(1, "")).value, settings["seeds"].value
    least = "at least " if one["at_least"] else ""
    together = f"; {least}{one['together'] / GIB:.1f} GiB with all {batch * gpus} on one" if gpus > 1 else ""
    lines = [
        *((name, str(given)) for name, given in settings.items()),
        ("rows", f"{one['rows']['value']:,} ({one['rows']['source']})"),
        ("steps", f"{one['steps']:,} ({settings['epochs'].value} epochs of {batch * gpus} rows an update)"),
        ("trainable", f"{one['trainable']:,} without the head, as the paper counts"),
        (
            "memory per GPU",
            f"{least}{one['memory'] / GIB:.1f} GiB with {batch} rows of {settings['max_length'].value} tokens{together}"
            f" ({one['dtype']} base; {one['usable'] / GIB:.1f} GiB of one {one['card']} are usable)",
        ),
        (
            "time",
            f"{least}{_hours(one['seconds'])} a seed, {_hours(one['seeds_seconds'])} for {seeds} seeds on one "
            f"{one['card']} at {one['utilisation']:.0%} of its peak, rows padded to full length, without scoring",
        ),
        ("published", ", ".join(f"{name} {value}" for name, value in one["published"].items()) or "nothing"),
        *([("expected", one["expected"])] if one["expected"] else []),
        *(("note", note) for note in one["notes"]),
        *(("missing", f"{lack['what']}: {lack['bring']}") for lack in one["missing"]),
    ]
    title = f"{one['table']}: {one['row']}, {one['model']}, {one['task']} ({one['variant']})"
    return "\n".join([title, *(f"  {name:16} {words}" for name, words in lines)])


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"

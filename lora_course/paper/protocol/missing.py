"""What a run of the paper needs and this machine lacks: model, data, GPU, packages; each with how to bring it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_course.paper.protocol.given import PaperRecipe
from lora_course.paper.protocol.made import not_run
from lora_lab.errors import LabError
from lora_lab.experiments.text_scores import missing_packages
from lora_lab.training.models import BUNDLED, load_tokenizer
from lora_lab.training.tasks import Task, load_task

HUB = {
    "roberta-base": "FacebookAI/roberta-base",
    "roberta-large": "FacebookAI/roberta-large",
    "deberta-v2-xxlarge": "microsoft/deberta-v2-xxlarge",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
}


@dataclass(frozen=True)
class Missing:
    """Something that is not here, and how to bring it."""

    what: str
    bring: str

    def __str__(self) -> str:
        return f"{self.what}: {self.bring}"


def missing(recipe: PaperRecipe, model_path: str | None, task: Task | str) -> tuple[Missing, ...]:
    """All that a run lacks. `task` is what `task_at` found: the data, or why there are none."""
    return (*_lab(recipe), *_model(recipe, model_path), *_data(recipe, task), *_packages(recipe), *_gpu())


def task_name(recipe: PaperRecipe, data: str) -> str:
    """The data as `load_task` takes them: a folder for E2E, glue:TASK:FOLDER for GLUE."""
    return data if recipe.task == "e2e" else f"glue:{recipe.task}:{data}"


def task_at(recipe: PaperRecipe, data: str | Path | None) -> Task | str:
    """The task in the folder named, or in words why there is none."""
    if data is None:
        return "no folder is named"
    try:
        found = load_task(task_name(recipe, str(data)), max_length=recipe["max_length"])
    except LabError as error:
        return str(error)
    return found if len(found.train) else "its train file is not there"


def _lab(recipe: PaperRecipe) -> Iterator[Missing]:
    if why := not_run(recipe):
        yield Missing("code", f"{why}; use the authors' own for this model")


def _model(recipe: PaperRecipe, path: str | None) -> Iterator[Missing]:
    bring = (
        f"on a machine with the network fetch {HUB[recipe.model]} (config.json, model.safetensors, the tokenizer's "
        "files) into a folder and give it with --model-path"
    )
    if path is None:
        yield Missing(f"the model {recipe.model}", f"no folder is named; {bring}")
    elif path not in BUNDLED:
        try:
            load_tokenizer(path)
        except LabError as error:
            yield Missing(f"the model {recipe.model}", f"{error}; {bring}")


def _data(recipe: PaperRecipe, task: Task | str) -> Iterator[Missing]:
    if isinstance(task, Task):
        return
    files = "trainset.csv, devset.csv, testset_w_refs.csv" if recipe.task == "e2e" else "train.tsv, dev.tsv"
    name = "E2E (Novikova et al. 2017)" if recipe.task == "e2e" else f"GLUE's {recipe.task} (Wang et al. 2018)"
    yield Missing(name, f"{task}; put the standard download ({files}) into a folder and give it with --data")


def _packages(recipe: PaperRecipe) -> Iterator[Missing]:
    for name in missing_packages() if recipe.task == "e2e" else ():
        yield Missing(f"the package {name}", "pip install 'lora-lab[metrics]'")


def _gpu() -> Iterator[Missing]:
    import torch

    if not torch.cuda.is_available():
        yield Missing("a GPU", "the run would start on this CPU, but not end in a useful time: use one with CUDA")

"""What all methods of a comparison share: model, task, tuning budget, seeds, margin."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lora_lab.errors import BadValue, LabWarning
from lora_lab.experiments.generation import check_scorable
from lora_lab.experiments.statistics import check_margin
from lora_lab.experiments.tuning import GROWTH, RATES, SEED, Tuning
from lora_lab.methods.base import Method
from lora_lab.training.device import dtype_to_train
from lora_lab.training.models import load_tokenizer
from lora_lab.training.recipe import Recipe
from lora_lab.training.tasks import Task, load_task

MARGIN = 0.015  # 1.5 points of accuracy; 0.015 nats per token for language models


@dataclass(frozen=True)
class Terms:
    """`fields` are further ones of the recipes, such as max_length. Raises: BadValue for an impossible value."""

    model: str
    task: str
    steps: int = 400
    batch: int = 16
    rates: int = RATES
    growth: int = GROWTH
    seeds: int = 5
    margin: float = MARGIN
    forgetting: str | None = None
    prompts: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least, most in (("rates", 1, 50), ("growth", 0, 50), ("seeds", 1, SEED), ("prompts", 0, 10**6)):
            if not least <= getattr(self, name) <= most:
                raise BadValue(f"{name} must be from {least} to {most:,}, not {getattr(self, name)}")

    def recipe(self, method: Method) -> Recipe:
        """A method's recipe before its rate is tuned. `dtype` is that of frozen bases."""
        own = {"steps": self.steps, "batch": self.batch, "validations": 0, **self.fields}
        made = Recipe(self.model, self.task, method, **own)
        return replace(made, dtype=dtype_to_train(made.dtype)) if method.trains_base else made

    def final(self, tuning: Tuning, method: Method) -> list[Recipe]:
        """The recipes that are scored, at the tuned rate."""
        return [replace(tuning.chosen(self.recipe(method)), seed=seed) for seed in range(self.seeds)]

    def data(self) -> Task:
        """The task, loaded."""
        columns = {name: self.fields[f"{name}_column"] for name in ("text", "label") if f"{name}_column" in self.fields}
        return load_task(self.task, max_length=self.fields.get("max_length"), **columns)

    def loaded(self, download: bool = False) -> Task:
        """The task, after all checks. Raises: BadValue, NotFound for a model or task that is missing or unfit."""
        load_tokenizer(self.model, download=download)
        task = self.data()
        check_margin(self.margin, shares=task.num_labels is not None)
        if task.num_labels is not None and (self.forgetting or self.prompts):
            raise BadValue(f"forgetting and prompts are of language models; {self.task} is classification")
        if self.prompts:
            check_scorable(task)
        if task.metric == "pearson":
            raise BadValue(f"{self.task} is judged by a correlation, of which there is no verdict by rows and seeds")
        if task.validation is task.test:
            warnings.warn(f"{self.task}: rates are tuned on the rows that are scored", LabWarning, stacklevel=2)
        if self.forgetting and load_task(self.forgetting).num_labels is not None:
            raise BadValue(f"forgetting is measured on plain text such as shakespeare, not on {self.forgetting}")
        return task


def terms_of(model: str, task: str, given: Mapping[str, Any]) -> Terms:
    """Terms from options: those of `Terms` itself, and the recipes' own. Raises: as `Terms`."""
    own = {name: value for name, value in given.items() if name in Terms.__dataclass_fields__}
    return Terms(model, task, **own, fields={name: value for name, value in given.items() if name not in own})

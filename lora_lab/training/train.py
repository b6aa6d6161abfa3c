"""From a recipe to a run: load, attach, train, score once, keep."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.files import read_json
from lora_lab.methods.adapters import CONFIG, load_adapter, save_adapter
from lora_lab.methods.base import Method, Report
from lora_lab.methods.lora import LoRA
from lora_lab.training import device
from lora_lab.training.batches import STEP, Row, encode, training_batches
from lora_lab.training.evaluate import Score, evaluate
from lora_lab.training.guard import check_memory
from lora_lab.training.loop import Callback, History, Progress, fit, on_device
from lora_lab.training.models import is_causal, load_model, load_tokenizer, local_name
from lora_lab.training.progress import progress_bar
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store
from lora_lab.training.tasks import Task, load_task


def train(
    recipe: Recipe | str,
    task: str | None = None,
    method: Method | None = None,
    *,
    store: Store | str | Path | None = "runs",
    callbacks: Sequence[Callback] = (),
    stop: threading.Event | None = None,
    download: bool = False,
    **fields: Any,
) -> Run:
    """Make a run: `train(Recipe(...))`, or in one line `train("minilm", "rt", LoRA(rank=8), lr=2e-3, steps=400)`.

    store       a folder that keeps the record and the adapter; None keeps nothing
    callbacks   called with a `Progress` after every step, like the bar that shows the time to go
    stop        set it from another thread to end training after the current step; the run is scored all the same
    download    allow the model hub to be asked
    Raises: BadValue, NotFound for what the recipe asks in vain, before anything is written; Failed when training
    diverges, after the failure is recorded.
    """
    if isinstance(recipe, str):
        if task is None:
            raise BadValue('name a task: train("minilm", "rt")')
        recipe = Recipe(recipe, task, method or LoRA(), **fields)
    elif task or method or fields:
        raise BadValue("give train either a Recipe or its parts, not both")
    bench = Bench(recipe, download=download)
    kept = Store(store) if isinstance(store, str | Path) else store
    if kept:
        kept.check_writable()
    try:
        with progress_bar(recipe.steps) as bar:
            run = bench.run([bar, *callbacks], stop)
    except LabError as error:
        if kept:
            keep_failure(kept, bench, error)
        raise
    return keep(kept, bench, run) if kept else run


def keep(store: Store, bench: Bench, run: Run) -> Run:
    """Save the adapter, then the record that names it; returns that record.

    A run that was stopped is returned without being kept where the store has a finished one of the same recipe.
    """
    if not store.replaces(run.status, run.recipe):
        return run
    folder = save_adapter(bench.model, store.adapter_folder(run.recipe))
    run = replace(run, adapter=str(folder))
    store.add(run)
    return run


def keep_failure(store: Store, bench: Bench, error: LabError) -> None:
    """Record that the run failed, and why, unless the store has a finished run of the same recipe."""
    if store.replaces("failed", bench.recipe):
        store.add(bench.failed(str(error)))


class Bench:
    """Everything a run needs, laid out: base model with the method attached, tokenizer, encoded data.

    Raises: whatever is wrong with the recipe, before any training.
    """

    def __init__(self, recipe: Recipe, *, download: bool = False) -> None:
        self.recipe, self.started = recipe, time.perf_counter()
        text, label = recipe.text_column, recipe.label_column
        self.task: Task = load_task(recipe.task, max_length=recipe.max_length, text=text, label=label)
        wanted = {"device": recipe.device, "dtype": recipe.dtype, "attention": recipe.attention}
        self.choice = device.choose(typical_tokens(self.task), **wanted)
        check_memory(recipe, self.choice)
        seed_everything(recipe.seed)  # before loading, for the head starts random
        dtype, attention = self.choice.torch_dtype, self.choice.attention
        labels = self.task.num_labels
        self.model: PreTrainedModel = load_model(
            recipe.model, labels, dtype=dtype, attention=attention, download=download
        )
        check_fits(self.model, self.task)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(recipe.model, download=download)
        self.model.config.pad_token_id = self.tokenizer.pad_token_id  # a causal classifier looks for it in the rows
        seed_everything(recipe.seed)  # again, so that A does not depend on how much the head drew
        self.report: Report = recipe.method.attach(self.model)
        self.model.to(self.choice.device)
        self.rows = {
            name: encode(getattr(self.task, name), self.task, self.tokenizer) for name in ("train", "validation")
        }
        self.peak_bytes = 0
        self.history = History()

    def run(
        self,
        callbacks: Sequence[Callback] = (),
        stop: threading.Event | None = None,
        before_scoring: Callable[[], None] = lambda: None,
    ) -> Run:
        """Train, then score the test split once. Raises: Failed when training diverges."""
        recipe, pad = self.recipe, self.pad
        device.forget_peak(self.device)
        batches = on_device(
            training_batches(self.rows["train"], recipe.batch, recipe.steps, recipe.seed, pad), self.device
        )
        watchers = [self._watch_memory, *callbacks]
        fit(self.model, batches, recipe, self.validate, callbacks=watchers, stop=stop, history=self.history)
        before_scoring()
        test = self.score("test")
        return self._record(self.history.status, test.metrics, predictions=test.predictions)

    def failed(self, reason: str) -> Run:
        """The record of a run that came to nothing."""
        return self._record("failed", {}, error=reason)

    def validate(self) -> dict[str, float]:
        """The metrics of the validation split, for the curve and for choosing."""
        return self.score("validation").metrics

    def score(self, split: str) -> Score:
        """Score a split with the model as it is now."""
        rows: list[Row] = self.rows.get(split) or encode(getattr(self.task, split), self.task, self.tokenizer)
        return evaluate(self.model, rows, self.pad, self.device)

    @property
    def device(self) -> str:
        """Where the model is."""
        return self.choice.device

    @property
    def pad(self) -> int:
        """The token that fills rows up."""
        return int(self.tokenizer.pad_token_id)

    def _watch_memory(self, progress: Progress) -> None:
        self.peak_bytes = max(self.peak_bytes, device.used_bytes(self.device))

    def _record(self, status: str, metrics: dict[str, float], **more: Any) -> Run:
        return Run(
            recipe=self.recipe,
            metrics=metrics,
            history=self.history.columns(),
            adapter_parameters=self.report.adapter_parameters,
            head_parameters=self.report.head_parameters,
            total=self.report.total,
            seconds=time.perf_counter() - self.started,
            peak_bytes=self.peak_bytes,
            environment=device.environment(self.choice),
            status=status,
            **more,
        )


def seed_everything(seed: int) -> None:
    """Seed the generators that training draws from: torch on all devices, numpy, Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def typical_tokens(task: Task) -> int:
    """About how long the task's texts are in tokens (4 characters each), for choosing attention and dtype."""
    sample = task.train.texts[:200]
    return min(task.max_length, sum(map(len, sample)) // (4 * len(sample)))


def positions(model: PreTrainedModel) -> int | None:
    """How many tokens a model can read: whole steps of the batches' width; RoBERTa's first positions are padding's."""
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest and "roberta" in model.config.model_type:
        longest -= model.config.pad_token_id + 1
    return longest and longest // STEP * STEP


def check_fits(model: PreTrainedModel, task: Task) -> None:
    """Raises BadValue for a model that cannot do the task: an encoder in language modelling, texts too long."""
    if task.num_labels is None and not is_causal(model):
        raise BadValue(
            f"task {task.name} is language modelling and needs a causal model such as smollm2, not an encoder"
        )
    if task.num_labels is None and task.max_length < 2:
        raise BadValue("max_length must be at least 2 in language modelling: one token has no next one to predict")
    longest = positions(model)
    if longest and task.max_length > longest:
        raise BadValue(f"max_length {task.max_length} is above the {longest} tokens that this model can read")


def evaluate_adapter(
    adapter: str | Path,
    task: str,
    *,
    model: str | None = None,
    dtype: str = device.AUTO,
    attention: str = device.AUTO,
    device_name: str = device.AUTO,
    max_length: int | None = None,
    text_column: str = "text",
    label_column: str = "label",
    download: bool = False,
) -> dict[str, float]:
    """The metrics of a saved adapter on a task's test split.

    model   the base model; the one that the adapter's config names when None
    Raises: NotFound, BadValue as `load_task`, `load_model` and `load_adapter`.
    """
    data = load_task(task, max_length=max_length, text=text_column, label=label_column)
    if not (Path(adapter) / CONFIG).is_file():
        raise NotFound(f"{adapter} is not an adapter: it holds no {CONFIG}")
    named = read_json(Path(adapter) / CONFIG).get("base_model_name_or_path")
    name = model or local_name(named or "")
    if not name:
        raise BadValue(f"the adapter in {adapter} names no base model; give one with --model")
    choice = device.choose(typical_tokens(data), device=device_name, dtype=dtype, attention=attention)
    base = load_model(name, data.num_labels, dtype=choice.torch_dtype, attention=choice.attention, download=download)
    check_fits(base, data)
    load_adapter(base, adapter)
    tokenizer = load_tokenizer(name, download=download)
    base.config.pad_token_id = tokenizer.pad_token_id
    rows = encode(data.test, data, tokenizer)
    return evaluate(base.to(choice.device), rows, int(tokenizer.pad_token_id), choice.device).metrics

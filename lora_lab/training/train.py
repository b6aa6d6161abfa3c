"""Train a recipe, score the run once and store it. Score a saved adapter, and find predictions that adapters change."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue, Failed, LabError, warn
from lora_lab.methods import method_from
from lora_lab.methods.base import Method, plain
from lora_lab.methods.io import AdapterFile, load_adapter, read_config, readable, save_adapter
from lora_lab.methods.lora import LoRA
from lora_lab.methods.merge import disabled
from lora_lab.training.batches import check_fits, encode
from lora_lab.training.device import AUTO, choose
from lora_lab.training.evaluate import Score, evaluate
from lora_lab.training.member import Callback
from lora_lab.training.models import load_model, load_tokenizer, take_shortcuts
from lora_lab.training.named import base_named_in, labels_of
from lora_lab.training.pack import Pack
from lora_lab.training.progress import progress_bar
from lora_lab.training.recipe import Recipe, check_fields
from lora_lab.training.runs import FINISHED, Run, Store, run_of
from lora_lab.training.tasks import Task, check_unchanged, task_of, typical_tokens
from lora_lab.training.watching import training_lock


def train(
    recipe: Recipe | str, task: str | None = None, method: Method | None = None, *,
    store: Store | str | Path | None = "runs", callbacks: Sequence[Callback] = (), stop: threading.Event | None = None,
    download: bool = False, **fields: Any,
) -> Run:  # fmt: skip
    """Train a run: `train(Recipe(...))` or, in one line, `train("minilm", "rt", LoRA(rank=8), lr=2e-3, steps=400)`.

    store       The folder for the record and the adapter, or None to keep nothing.
    callbacks   Functions that are called with a `Progress` after every step.
    stop        An event that another thread can set to end training after the current step. The run is still scored.
    download    Allow downloads from the model hub.
    The call waits while another thread (such as a panel's) is training, since all threads share one random state.
    Raises: BadValue or NotFound for a recipe that cannot run, before anything is written; Failed if `stop` is set while
    the call waits. For other errors, see `train_alone`.
    """
    if not isinstance(recipe, Recipe):
        if task is None:
            raise BadValue('name a task, such as train("minilm", "rt")')
        check_fields(fields)
        recipe = Recipe(recipe, task, method or LoRA(), **fields)
    elif task or method or fields:
        raise BadValue("pass either a Recipe or its fields, not both")
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise BadValue(f"callbacks must be a list of functions, such as [print], not {callbacks!r}")
    store = None if store is None else Store(store)
    with training_lock(stop) as acquired, progress_bar(recipe.steps) as bar:
        if not acquired:
            raise Failed("stopped while waiting for another training run to end: call train again")
        pack = Pack([recipe], download=download, callbacks=lambda _: [bar, *callbacks])
        if store is not None:
            store.check_writable()
        return train_alone(pack, store, stop)


def train_alone(pack: Pack, store: Store | None = None, stop: threading.Event | None = None) -> Run:
    """Train a pack of one run. Store the adapter, then the record that names it, and return the record.

    A failed or stopped run is not kept if the store has a finished run of the same recipe.
    Raises: Changed, before any training, if the store holds finished runs on an earlier version of the data or weights;
    Failed, after the failure is recorded, if training diverges.
    """
    (member,) = pack.members
    for other in store.runs(needed=()) if store is not None and any(pack.fingerprints.values()) else ():
        if other.recipe != member.recipe and other.status in FINISHED:
            check_unchanged(other.recipe, other.environment, pack.fingerprints)
    try:
        (run,) = pack.run(stop=stop)
        if run.error:
            raise Failed(run.error)
    except LabError as error:
        member.fail(str(error))
        if store is not None and store.replaces("failed", member.recipe):
            store.add(pack.record(member, None))
        raise
    if store is not None and store.replaces(run.status, run.recipe):
        run = replace(run, adapter=str(save_adapter(member.model, store.adapter_folder(run.recipe))))
        store.add(run)
    return run


@dataclass(frozen=True)
class Opened:
    """A saved adapter on its base, with a task to score it on."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: Task

    def score(self) -> Score:
        rows = encode(self.task.test, self.task, self.tokenizer)
        return evaluate(self.model, rows, int(self.tokenizer.pad_token_id), str(self.model.device), self.task.metrics)


def open_adapter(
    adapter: str | Path, task: str | None = None, *, model: str | None = None, dtype: str | None = None,
    max_length: int | None = None, text_column: str | None = None, label_column: str | None = None,
    attention: str = AUTO, device: str = AUTO, download: bool = False,
) -> Opened:  # fmt: skip
    """Load a saved adapter, its base and a task.

    model   The base model, which is by default the model in the adapter's config.
    For the other options, see `Recipe`. If the run's record is next to the adapter, `task`, `dtype`, `max_length` and
    the columns default to the run's values (for another task, only `dtype` does). Otherwise, they have a recipe's
    defaults, and `task` is rt.
    Raises: BadValue for a task whose kind or classes differ from those of the run, for a dtype that would round an
    fp32 base, or if neither the adapter nor the base has a head. See also `load_task`, `load_model` and `load_adapter`.
    """
    name, config, run = model or base_named_in(adapter, "--model"), read_config(adapter), run_of(adapter)
    with readable(adapter):
        own = run.recipe if run else Recipe(name, "rt", method_from(config.get("method") or {"name": "lora"}))
    columns = {"text_column": text_column, "label_column": label_column}
    given: dict[str, Any] = {"task": task, "dtype": dtype, "max_length": max_length, **columns}
    given = {name: plain(value) for name, value in given.items() if value is not None}
    if given.get("task", own.task) != own.task:
        given = {"max_length": None, "text_column": "text", "label_column": "label"} | given
    recipe = replace(own, attention=attention, device=device, **given)
    data, task = task_of(recipe), recipe.task
    if (labels := labels_of(adapter)) and data.num_labels is None:
        raise BadValue(f"the adapter in {adapter} is a classifier: pass a classification task instead of {task}")
    if data.num_labels is not None and config.get("task_type") == "CAUSAL_LM":
        raise BadValue(f"the adapter in {adapter} is for a language model: pass prompts or text instead of {task}")
    if run and run.labels and run.labels != [*data.labels]:
        names = f"{', '.join(run.labels)}, not {', '.join(data.labels)}"
        raise BadValue(f"{adapter} was trained on the classes {names}: pass a task that has these classes")
    if run and task == own.task and run.environment.get("data") not in (None, data.data):
        warn(f"{task} has changed since this run was trained, so the test rows may include rows that it was trained on")
    choice = choose(typical_tokens(data), **recipe.computed)
    if own.method.trains_base and choice.load_as != "fp32" and "F32" in AdapterFile(adapter).dtypes.values():
        raise BadValue(f"{adapter} holds a base trained in fp32, which {choice.load_as} would round: pass dtype fp32")
    base = load_model(name, data.num_labels, dtype=choice.load_as, attention=choice.attention, download=download)
    if labels is None and base.lora_lab_random_heads:
        raise BadValue(f"neither the adapter in {adapter} nor '{name}' has a head, so scores are random: train a head")
    method = load_adapter(base, adapter).method
    check_fits(base, data, method)
    take_shortcuts(base, method)
    tokenizer = load_tokenizer(name, download=download)
    base.config.pad_token_id = tokenizer.pad_token_id
    return Opened(base.to(choice.device), tokenizer, data)


def evaluate_adapter(adapter: str | Path, task: str | None = None, **options: Any) -> dict[str, float]:
    """Return a saved adapter's metrics on a task's test split. For defaults, options and errors, see `open_adapter`."""
    return open_adapter(adapter, task, **options).score().metrics


def changed_predictions(pack: Pack, examples: int = 6) -> dict[str, Any] | None:
    """Score the validation split with the adapter and without it, using the same head.

    Return row counts (`changed`, `of`, `better`), accuracies in percent (`without`, `with`), and `examples`, a list of
    {text, truth, without, with_adapter}, whose last three values are class names. Examples alternate between kinds of
    change (the new class, and whether it is right); within a kind, the most confident come first. Return None for a
    task without classes, or if the base itself was trained, because then no adapter can be disabled.
    """
    task = pack.task
    if len(task.labels) < 2 or pack.members[0].recipe.method.trains_base:
        return None
    with disabled(pack.model, keep_head=True):
        (without,) = pack.score("validation")
    (with_adapter,) = pack.score("validation")
    before, after, truth = without.predictions, with_adapter.predictions, np.array(task.validation.labels)
    changed = np.flatnonzero(before != after)
    margins = np.diff(np.sort(with_adapter.by_row, axis=1))[:, -1]
    kinds: dict[tuple[bool, int], list[int]] = {}
    for i in sorted(changed.tolist(), key=lambda i: -margins[i]):
        kinds.setdefault((bool(after[i] == truth[i]), int(after[i])), []).append(i)
    rounds = zip_longest(*(kinds[kind] for kind in sorted(kinds, reverse=True)))
    chosen = [i for places in rounds for i in places if i is not None][:examples]
    columns = ("truth", truth), ("without", before), ("with_adapter", after)
    return {
        "changed": len(changed),
        "of": len(truth),
        "better": int((after[changed] == truth[changed]).sum()),
        "without": 100 * without.metrics["accuracy"],
        "with": 100 * with_adapter.metrics["accuracy"],
        "examples": [
            {"text": task.validation.texts[i], **{name: task.labels[classes[i]] for name, classes in columns}}
            for i in chosen
        ],
    }

"""Train a pack of one or more runs on one frozen base and one copy of the data, with one member per recipe.

Whatever the recipes share (`key`) is set up only once. Each member has its own method, learning rate and seed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue, OutOfMemory
from lora_lab.machine import BUILDING
from lora_lab.methods.attach import heads_of, put
from lora_lab.methods.base import Report
from lora_lab.methods.full import Probe
from lora_lab.methods.io import attach_from, load_adapter
from lora_lab.methods.packed import has_dropout, share, stack_members
from lora_lab.training import device
from lora_lab.training.batches import Batch, Row, check_fits, collate, encode, training_rows
from lora_lab.training.device import Parts, cut, in_parts, rounded_products
from lora_lab.training.evaluate import Score, evaluate, evaluate_members
from lora_lab.training.member import Callback, Member, Metrics, fit_probe, label_losses, train_step, training_mode
from lora_lab.training.memory_check import check_memory
from lora_lab.training.models import load_model, load_tokenizer, take_shortcuts
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.tasks import chosen_rows, fingerprint, task_of, typical_tokens
from lora_lab.training.watching import training_lock

MAY_DIFFER = ("method", "lr", "seed", "subset", "weight_decay", "warmup", "clip", "patience")  # within a pack
CHECKPOINT_EVERY = 30  # seconds between checkpoints, and thus the most training time that can be lost
CHECKPOINT_SHARE = 0.05  # of the time, at most, goes into checkpoints; a fully fine-tuned SmolLM2 writes 1.6 GB each
OnEnd = Callable[[Member, Run], None]


def key(recipe: Recipe) -> tuple[Any, ...]:
    """Return a key that the recipes in a pack share. A recipe that cannot share its base model has a unique key."""
    settings = recipe.settings()
    shared = tuple((name, value) for name, value in settings.items() if name not in MAY_DIFFER)
    if not recipe.method.can_pack or recipe.dropout:
        return (*shared, recipe.hash)
    same = {name: value for name, value in settings["method"].items() if name not in recipe.method.may_differ}
    return (*shared, json.dumps(same, sort_keys=True))


class Pack:
    """The base model, members, tokenizer and encoded data of runs that train together.

    adapters        A function that returns the folder of a recipe's saved adapter, for members that are only scored.
    judge           A function of the members in training and the step number, called after each step. It may end
                    members.
    losses          The losses to minimize; see `label_losses`.
    scores_*        `scores_stopped`: whether to score stopped runs. `scores_ends`: whether to score members before the
                    first step (on the validation split) and after the last step (on the test split).
    on_checkpoint   A function that writes a checkpoint. It is called after a validation and every 30 s, or less often
                    if writing is slow. With dropout in adapters, it is also called before members leave.
    A process builds or runs only one pack at a time; see `training_lock`.
    Raises: BadValue or NotFound for an error in a recipe, before any training; BadValue for recipes that cannot train
    side by side.
    """

    losses = staticmethod(label_losses)

    @training_lock()
    def __init__(
        self, recipes: Sequence[Recipe], *, callbacks: Callable[[Recipe], Sequence[Callback]] | None = None,
        download: bool = False, adapters: Callable[[Recipe], Path] | None = None,
    ) -> None:  # fmt: skip
        first, self.started, self.download, self.adapters = recipes[0], time.perf_counter(), download, adapters
        if len({key(recipe) for recipe in recipes}) > 1:
            raise BadValue(f"these recipes cannot train side by side: they may differ only in {', '.join(MAY_DIFFER)}")
        self.task = task_of(first)
        if not self.task.train.texts:
            raise BadValue(f"{first.task} has no training data: add train.txt, trainset.csv or train.tsv")
        self.files = {"data": self.task.data, "weights": fingerprint(first.model), "start": fingerprint(first.start)}
        self.fingerprints = dict(zip((first.task, first.model, first.start), self.files.values(), strict=True))
        self.choice = device.choose(typical_tokens(self.task), **first.computed)
        self.device = self.choice.device
        draws = {r.subset: chosen_rows(self.task, r.examples, r.subset) for r in recipes}
        for recipe in {recipe.method: recipe for recipe in recipes}.values():
            check_memory(recipe, self.choice, self.task)
        self.base = self._loaded(first)
        self.choice = replace(self.choice, attention=self.base.config._attn_implementation)
        take_shortcuts(self.base, first.method)
        check_fits(self.base, self.task, first.method)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(first.model, download=download)
        self.pad = self.base.config.pad_token_id = int(self.tokenizer.pad_token_id)  # causal classifiers look for it
        self.size, self.step, self.peak_bytes = len(recipes), 0, 0
        heads = {first.seed: dict(heads_of(self.base))}
        models = [self._adapted(recipe, heads) for recipe in recipes]  # on the CPU, so A equals the A of a single run
        for tensor in chain(self.base.parameters(), self.base.buffers()):
            tensor.data = tensor.data.to(self.device)  # in place: all members share it
        pairs = zip(recipes, models, strict=True)
        self.members = [Member(r, model.to(self.device), callbacks(r) if callbacks else ()) for r, model in pairs]
        self.scores_stopped = self.scores_ends = True
        self.judge: Callable[[Sequence[Member], int], None] = lambda members, step: None
        self.on_checkpoint: Callable[[Pack], None] = lambda pack: None
        self.checkpoint_at, self.checkpoint_seconds = self.started, 0.0
        self._on_end: OnEnd = lambda member, run: None
        self._runs: list[Run] = []
        self.rows = {"validation": encode(self.task.validation, self.task, self.tokenizer)}
        self.draws = {subset: encode(self.task.train.at(n), self.task, self.tokenizer) for subset, n in draws.items()}
        known = getattr(self.base.config, "vocab_size", None) or float("inf")
        if self.task.test.prompts or len(self.tokenizer) > known:  # raise before training, not after it
            self.rows_of("test")
        rows = chain(*self.rows.values(), *self.draws.values())
        if (largest := max(self.pad, *(max(row.tokens, default=0) for row in rows))) >= known:
            reason = f"has token {largest}, but '{first.model}' knows only {known} tokens"
            raise BadValue(f"the tokenizer {reason}: use the model's own tokenizer, or resize_token_embeddings")
        self.model: nn.Module = self.members[0].model
        if self.size > 1:
            device.keep_freed_memory()
            self._restack()
        torch.manual_seed(first.seed)  # so that dropout doesn't depend on the random numbers that heads and A used
        self.random = device.module_of(self.device).get_rng_state()

    @training_lock()
    def run(self, on_end: OnEnd = lambda member, run: None, stop: threading.Event | None = None) -> list[Run]:
        """Train all members, score each once on the test split, and call `on_end` for each run. Raises: OutOfMemory."""
        self._on_end, self._runs = on_end, []
        try:
            self.fit(stop)
            if self.stopped and not self.scores_stopped:
                if ended := [member for member in self.members if member.status != "stopped"]:
                    self.leave(ended)
                return self._runs
            failed = all(member.error for member in self.members)
            scores = self.score("test") if self.scores_ends and not failed else [None] * len(self.members)
            for member, score in zip(self.members, scores, strict=True):
                self._finish(member, score)
            return self._runs
        except (RuntimeError, MemoryError) as error:  # a CPU and a Mac's GPU raise plain RuntimeErrors
            text = str(error)
            if not (isinstance(error, MemoryError) or "DefaultCPUAllocator" in text or "out of memory" in text):
                raise
        device.free_memory()  # after the handler, whose traceback keeps the step's tensors
        batch = self.members[0].recipe.batch
        smaller = f"batch {batch // 2}" if batch > 1 else "a shorter max_length or a smaller model"
        raise OutOfMemory(f"memory ran out while training with batch {batch}: try {smaller}, or close other programs")

    def fit(self, stop: threading.Event | None = None) -> None:
        """Train all members, one batch per member per step, until the steps are done or the last member has ended.

        A member with a non-finite loss or gradient ends as failed. The other members continue, since rows of different
        members never interact. After the step in which `stop` is set, all members end as stopped.
        """
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        device.module_of(self.device).set_rng_state(self.random)
        recipe, probe = self.members[0].recipe, isinstance(self.members[0].recipe.method, Probe)
        new = not any(member.history["step"] or member.history["validation"] for member in self.members)
        if new and not probe and recipe.validations and self.scores_ends:
            self.before()
        if not new:  # a checkpoint is written before the judge decides
            self.judge([member for member in self.members if not member.ended], self.step)
        if not self._continues():  # members may have ended before an interruption
            return
        if probe:
            rows = self.draws[recipe.subset]
            fit_probe(self.members[0], rows, self.pad, self.device, lambda: self.validate()[0], stop=stop)
            return
        training_mode(self.model, base_dropout=recipe.dropout)
        validations = min(recipe.validations, recipe.steps)  # at even intervals, the last one after the last step
        for step, batch in self.batches():
            with rounded_products(self.choice.products):
                train_part = partial(train_step, step, batch, self.members, losses=self.losses)
                in_parts(train_part, self.model, len(self.members))
            validated = step * validations // recipe.steps > (step - 1) * validations // recipe.steps
            results: Sequence[Metrics | None] = self.validate() if validated else [None] * len(self.members)
            for member, metrics in zip(self.members, results, strict=True):
                member.end_step(metrics)  # history, callbacks, patience
            self.after(step, validated)
            if stop is not None and stop.is_set():
                for member in self.members:
                    member.end("stopped")
            if not self._continues():
                break
        for member in self.members:
            member.end("done")
        self.random = device.module_of(self.device).get_rng_state()  # a stopped run continues from this state
        self.model.eval()

    @property
    def stopped(self) -> bool:
        """Whether training was stopped by hand. Even then, some members may have finished in the last step."""
        return any(member.status == "stopped" for member in self.members)

    # ---- parts of the loop

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield the remaining steps, each with a batch that holds the rows of all members."""
        first = self.members[0].recipe
        feeds = {
            (seed, subset): training_rows(self.draws[subset], first.batch, first.steps, seed)
            for seed, subset in {(member.recipe.seed, member.recipe.subset) for member in self.members}
        }
        for step in range(1, first.steps + 1):
            rows = {feed: next(batches) for feed, batches in feeds.items()}
            if step > self.step:
                self.step = step
                own = [rows[member.recipe.seed, member.recipe.subset] for member in self.members]
                yield step, collate(list(chain(*own)), self.pad).to(self.device)

    def validate(self) -> list[Metrics]:
        """Score the validation split, for the learning curve and for model selection."""
        scores = self.score("validation")
        for member, score in zip(self.members, scores, strict=True):
            member.right = score.right(self.rows["validation"])
        return [score.metrics for score in scores]

    def before(self) -> None:
        """Score the validation split before the first update, as step 0 of each history."""
        if self.size == 1 or self.members[0].recipe.method.name != "lora":
            results = self.validate()
        else:  # LoRA members with the same seed still have equal outputs
            firsts = {member.recipe.seed: member for member in reversed(self.members)}
            by_seed = {seed: self._alone(member, "validation").metrics for seed, member in firsts.items()}
            results = [by_seed[member.recipe.seed] for member in self.members]
        for member, metrics in zip(self.members, results, strict=True):
            if member.fail_unless_finite({"validation loss": metrics.get("loss", 0.0)}):
                member.history["validation"].append({"step": 0, **metrics})

    def after(self, step: int, validated: bool) -> None:
        """Write a checkpoint after a validation and every CHECKPOINT_EVERY seconds; then let the judge end members."""
        self.peak_bytes = max(self.peak_bytes, device.used_bytes(self.device))
        since = (began := time.perf_counter()) - self.checkpoint_at
        if (validated or since > CHECKPOINT_EVERY) and since >= self.checkpoint_seconds / CHECKPOINT_SHARE:
            self.on_checkpoint(self)
            self.checkpoint_at = time.perf_counter()
            self.checkpoint_seconds = self.checkpoint_at - began
        self.judge([member for member in self.members if not member.ended], step)

    def leave(self, ended: Sequence[Member]) -> None:
        """Score and record the members that ended, and continue with the others."""
        if any(has_dropout(member.model) for member in self.members):
            self.on_checkpoint(self)  # to resume at an earlier step without these members would change dropout masks
        for member in ended:
            self._finish(member, self._alone(member, "test") if self.scores_ends and not member.error else None)
        self.members = [member for member in self.members if member not in ended]
        self._restack()
        training_mode(self.model, base_dropout=self.members[0].recipe.dropout)

    def _continues(self) -> bool:
        """Let ended members leave, unless all members have ended. Return whether any member is still in training."""
        ended = [member for member in self.members if member.ended]
        if len(ended) == len(self.members):
            return False
        if ended:
            self.leave(ended)
        return True

    # ---- scores and records

    def score(self, split: str) -> list[Score]:
        members = len(self.members)
        return evaluate_members(self.model, self.rows_of(split), self.pad, self.device, members, self.task.metrics)

    def rows_of(self, split: str) -> list[Row]:
        """Return a split's tokenized rows, which are encoded on first use."""
        if split not in self.rows:
            self.rows[split] = encode(getattr(self.task, split), self.task, self.tokenizer)
        return self.rows[split]

    def record(self, member: Member, score: Score | None) -> Run:
        """Return a member's record. `seconds` is the member's share of the pack's time."""
        report: Report = member.model.lora_lab_report  # type: ignore[assignment]
        environment = device.environment(self.choice) | {"pack": self.size}
        return Run(
            recipe=member.recipe,
            metrics=score.metrics if score else {},
            history={name: [*values] for name, values in member.history.items()},
            adapter_parameters=report.adapter_parameters,
            head_parameters=report.head_parameters,
            total=report.total,
            seconds=(time.perf_counter() - self.started) / self.size,
            peak_bytes=self.peak_bytes or device.used_bytes(self.device),  # a probe takes no steps
            environment=environment | {name: value for name, value in self.files.items() if value},
            status=member.status,
            error=member.error,
            warnings=list(member.warnings),
            labels=list(self.task.labels),
            predictions=score.predictions if score else None,
        )

    def _finish(self, member: Member, score: Score | None) -> None:
        if score and not member.error:
            member.fail_unless_finite({f"test {name}": value for name, value in score.metrics.items()})
        run = self.record(member, None if member.error else score)
        self._runs.append(run)
        self._on_end(member, run)

    def _alone(self, member: Member, split: str) -> Score:
        return evaluate(member.model, self.rows_of(split), self.pad, self.device, self.task.metrics)

    # ---- building the models

    def _loaded(self, recipe: Recipe) -> PreTrainedModel:
        """Load the base with a random head, which is drawn with the recipe's seed."""
        options: Any = {"attention": self.choice.attention, "download": self.download}
        with BUILDING:  # so that no other thread draws random numbers between the seed and the head
            torch.manual_seed(recipe.seed)
            return load_model(recipe.model, self.task.num_labels, dtype=self.choice.load_as, **options)

    def _adapted(self, recipe: Recipe, heads: dict[int, dict[str, nn.Module]]) -> nn.Module:
        """Return a member's model on the shared base, with a head and A that are drawn with the member's own seed."""
        model: Any = self.base if self.size == 1 else share(self.base)
        if self.size > 1 and self.task.num_labels and recipe.seed not in heads:
            heads[recipe.seed] = dict(heads_of(self._loaded(recipe)))  # only for its random head
        for name, head in heads.get(recipe.seed, {}).items():
            put(model, name, head)
        with BUILDING:
            torch.manual_seed(recipe.seed)  # again, so that A doesn't depend on the random numbers that the head used
            if self.adapters:
                load_adapter(model, self.adapters(recipe))
            elif recipe.start:
                attach_from(recipe.method, model, recipe.start)
            else:
                recipe.method.attach(model)
        return model  # type: ignore[no-any-return]

    def _restack(self) -> None:
        """Stack the members and their AdamW moments into a table. If only one member is left, it trains alone."""
        if len(self.members) == 1:
            self.members[0].remain()
            self.model = self.members[0].model
            return
        states = [member.state() for member in self.members]
        models = [member.model for member in self.members]
        parts = [slice(0, len(models))] if any(map(has_dropout, models)) else cut(len(models), self.device)
        stacked = []
        for part in parts:
            model, numbers, gradients = stack_members(self.base, models[part])
            for member, row, gradient, state in zip(self.members[part], numbers, gradients, states[part], strict=True):
                member.join(row, gradient, state)
            stacked.append(model)
        self.model = Parts(stacked, parts) if len(parts) > 1 else stacked[0]

"""Runs laid out side by side: one frozen base, one copy of the data, a lane for each recipe. A run is a pack of one.

What the recipes of a pack have in common (`key`) is done once; what they differ in is each lane's own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_lab.errors import BadValue
from lora_lab.methods.attach import heads_of, put
from lora_lab.methods.base import Report
from lora_lab.methods.io import attach_from, load_adapter
from lora_lab.methods.packed import Room, Stream, can_pack, drops, pack, room_of, share
from lora_lab.methods.probe import Probe
from lora_lab.methods.read_once import read_once
from lora_lab.training import device
from lora_lab.training.allocator import keep_freed_memory
from lora_lab.training.attention import attend_in_fp32
from lora_lab.training.batches import Batch, Row, collate, encode, training_rows, width_of
from lora_lab.training.draws import drawn
from lora_lab.training.evaluate import Score, evaluate, evaluate_lanes
from lora_lab.training.first_token import answer_at_first_token
from lora_lab.training.guard import check_memory
from lora_lab.training.lane import Callback, Lane, Progress
from lora_lab.training.lengths import check_fits, typical_tokens
from lora_lab.training.loop import fit
from lora_lab.training.models import load_model, load_tokenizer
from lora_lab.training.parts import Parts, cut
from lora_lab.training.probing import fit_probe
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run
from lora_lab.training.seeds import seed_everything
from lora_lab.training.tasks import Task, load_task
from lora_lab.training.turns import turn

OWN = ("method", "lr", "seed", "subset", "weight_decay", "warmup", "clip", "patience")  # of each lane of one pack
OFTEN = 30  # seconds of training that are lost at most where a process is killed
Keep = Callable[[Lane, Run], None]


def key(recipe: Recipe) -> tuple[Any, ...]:
    """Equal for recipes that can train side by side; unique for one that cannot share its base."""
    settings = recipe.settings()
    method = settings["method"]
    shared = tuple((name, value) for name, value in settings.items() if name not in OWN)
    if not recipe.method.packs or recipe.dropout or "embed" in method.get("targets", ()):
        return (*shared, recipe.hash)
    alike = {name: value for name, value in method.items() if name not in recipe.method.may_differ}
    return (*shared, json.dumps(alike, sort_keys=True))


class Pack:
    """Everything that some runs need, laid out: base model, lanes, tokenizer, encoded data.

    adapters    the folder of each recipe's adapter, saved before, for lanes that are scored and not trained
    One is made or run at a time in a process, see `turns`.
    Raises: BadValue, NotFound for what is wrong with a recipe, before any training; BadValue for recipes that differ in
    more than OWN.
    """

    @turn()
    def __init__(
        self, recipes: Sequence[Recipe], *, callbacks: Callable[[Recipe], Sequence[Callback]] | None = None,
        download: bool = False, adapters: Callable[[Recipe], Path] | None = None,
    ) -> None:  # fmt: skip
        first, self.started, self.download, self.adapters = recipes[0], time.perf_counter(), download, adapters
        if len(recipes) > 1:
            keep_freed_memory()
        if len({key(recipe) for recipe in recipes}) > 1:
            raise BadValue("these recipes cannot train side by side: they differ in more than a lane may")
        text, label = first.text_column, first.label_column
        self.task: Task = load_task(first.task, max_length=first.max_length, text=text, label=label, download=download)
        if not self.task.train.texts:
            raise BadValue(
                f"{first.task} has nothing to train on: there is no train.txt or trainset.csv in it, nor a train.tsv"
            )
        self.choice = device.choose(typical_tokens(self.task), **first.computed)
        places = {r.subset: drawn(self.task, r.examples, r.subset) for r in recipes}
        for recipe in {recipe.method: recipe for recipe in recipes}.values():
            check_memory(recipe, self.choice)
        self.base = self._loaded(first)
        check_fits(self.base, self.task, first.method)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(first.model, download=download)
        self.base.config.pad_token_id = self.tokenizer.pad_token_id  # a causal classifier looks for it in the rows
        heads = {first.seed: dict(heads_of(self.base))}
        self.lanes = [self._lane(recipe, heads, len(recipes) == 1) for recipe in recipes]
        for lane in self.lanes:
            lane.callbacks = [self._watch_memory, *(callbacks(lane.recipe) if callbacks else ())]
        self.size, self.step, self.peak_bytes = len(recipes), 0, 0
        self.scores_stopped, self.scores_untrained = True, True
        self.scores_test = True  # else the test split is not looked at, and what is kept was validated only
        self.judge: Callable[[Sequence[Lane], int], None] = lambda lanes, step: None
        self.written: Callable[[Pack], None] = lambda pack: None
        self.written_at = self.started
        self.rows = {"validation": encode(self.task.validation, self.task, self.tokenizer)}
        self.rows["train"], self.draws = self._drawn_rows(places)
        self.room: Room | None = None
        self.model: nn.Module = self.lanes[0].model
        if self.size > 1:
            self._pack()

    @turn()
    def run(self, keep: Keep = lambda lane, run: None, stop: threading.Event | None = None) -> list[Run]:
        """Train all lanes and score each once on the test split; `keep` is called with each run at once."""
        self._keep, self._runs = keep, list[Run]()
        device.forget_peak(self.device)
        if self.size == 1:
            self.lanes[0].stream.go_on()  # others may have drawn since it was made
        self.fit(stop)
        if self.stopped and not self.scores_stopped:
            if ended := [lane for lane in self.lanes if lane.status != "stopped"]:
                self.leave(ended)
            return self._runs
        self.before_scoring()
        scores = self.score("test") if self.scores_test else [None] * len(self.lanes)
        for lane, score in zip(self.lanes, scores, strict=True):
            self._finish(lane, score)
        return self._runs

    def fit(self, stop: threading.Event | None = None) -> None:
        """Train all lanes, and score none on the test split."""
        first = self.lanes[0]
        if isinstance(first.recipe.method, Probe):
            fit_probe(first, self.rows["train"], self.pad, self.choice, self.validate, stop=stop)
            return
        fit(
            self.model, self.lanes, self.batches(), self.validate,
            before=self.before, after=self.after, leave=self.leave, products=self.choice.products, stop=stop,
        )  # fmt: skip

    @property
    def stopped(self) -> bool:
        """Whether training was stopped by hand; some lanes may have ended by themselves in that very step."""
        return any(lane.status == "stopped" for lane in self.lanes)

    def before_scoring(self) -> None:
        """Called between training and the test split."""

    # ---- what the loop asks

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """The steps still to come, each lane's own rows one under the other."""
        first, feeds = self.lanes[0].recipe, dict[tuple[int, int], Iterator[list[Row]]]()
        for seed, subset in {_feed(lane) for lane in self.lanes}:
            feeds[seed, subset] = training_rows(self.draws[subset], first.batch, first.steps, seed)
        for step in range(1, first.steps + 1):
            parts = {one: next(feed) for one, feed in feeds.items()}
            if step <= self.step:
                continue
            self.step = step
            for lane in self.lanes:
                lane.stream.width = width_of(parts[_feed(lane)])
            together = [row for lane in self.lanes for row in parts[_feed(lane)]]
            yield step, collate(together, self.pad).to(self.device)

    def validate(self) -> list[dict[str, float]]:
        """The metrics of the validation split, for the curve and for choosing."""
        for lane, score in zip(self.lanes, found := self.score("validation"), strict=True):
            lane.right = score.right(self.rows["validation"])
        return [score.metrics for score in found]

    def before(self) -> list[dict[str, float]]:
        """The same before the first update, where B is zero: lanes of one seed have one head, and answer alike."""
        if not self.scores_untrained:
            return [{}] * len(self.lanes)
        if self.size == 1 or any(lane.recipe.method.name != "lora" for lane in self.lanes):
            return self.validate()
        found: dict[int, dict[str, float]] = {}
        for lane in self.lanes:
            seed = lane.recipe.seed
            found[seed] = found.get(seed) or self._alone(lane, "validation").metrics
        return [found[lane.recipe.seed] for lane in self.lanes]

    def after(self, step: int, validated: bool) -> None:
        """How far all have come is written down after a validation, and now and then; then a judge may end lanes."""
        if self.size == 1:
            self.lanes[0].stream.note()
        if validated or time.perf_counter() > self.written_at + OFTEN:
            self.written(self)
            self.written_at = time.perf_counter()
        self.judge([lane for lane in self.lanes if not lane.ended], step)

    def leave(self, ended: Sequence[Lane]) -> tuple[nn.Module, list[Lane]]:
        """Score and keep what has ended, and go on with the others: the model and the lanes that are left."""
        for lane in ended:
            self._finish(lane, self._alone(lane, "test") if self.scores_test and not lane.error else None)
        self.lanes = [lane for lane in self.lanes if lane not in ended]
        self._pack()
        return self.model, self.lanes

    # ---- scores and records

    def score(self, split: str) -> list[Score]:
        """Score a split with all lanes as they are now."""
        rows, lanes = self.rows_of(split), len(self.lanes)
        return evaluate_lanes(self.model, rows, self.pad, self.device, lanes, self.task.metrics)

    def rows_of(self, split: str) -> list[Row]:
        """A split as tokens; the test split is encoded when it is asked for."""
        if split not in self.rows:
            self.rows[split] = encode(getattr(self.task, split), self.task, self.tokenizer)
        return self.rows[split]

    def _drawn_rows(self, places: dict[int, list[int]]) -> tuple[list[Row], dict[int, list[Row]]]:
        """Those training rows that some lane needs, and by subset those that its lanes train on."""
        needed = sorted({place for chosen in places.values() for place in chosen})
        rows = encode(self.task.train.at(needed), self.task, self.tokenizer)
        at = dict(zip(needed, rows, strict=True))
        return rows, {subset: [at[place] for place in chosen] for subset, chosen in places.items()}

    @property
    def device(self) -> str:
        """Where the model is."""
        return self.choice.device

    @property
    def pad(self) -> int:
        """The token that fills rows up."""
        return int(self.tokenizer.pad_token_id)

    def record(self, lane: Lane, score: Score | None) -> Run:
        """What came of a lane. `seconds` is its share of the pack's."""
        report: Report = lane.model.lora_lab_report  # type: ignore[assignment]
        own = {"data": self.task.data} if self.task.data else {}
        return Run(
            recipe=lane.recipe,
            metrics=score.metrics if score else {},
            history=lane.history.columns(),
            adapter_parameters=report.adapter_parameters,
            head_parameters=report.head_parameters,
            total=report.total,
            seconds=(time.perf_counter() - self.started) / self.size,
            peak_bytes=self.peak_bytes,
            environment=device.environment(self.choice) | {"pack": self.size, **own},
            status=lane.status,
            error=lane.error,
            warnings=list(lane.warnings),
            predictions=score.predictions if score else None,
        )

    def _finish(self, lane: Lane, score: Score | None) -> None:
        lane.check_finite(score.metrics if score else {})
        run = self.record(lane, None if lane.error else score)
        self._runs.append(run)
        self._keep(lane, run)

    def _alone(self, lane: Lane, split: str) -> Score:
        """The score of one lane of a pack, as a model of its own."""
        return evaluate(lane.model, self.rows_of(split), self.pad, self.device, self.task.metrics)

    # ---- laying out

    def _loaded(self, recipe: Recipe) -> PreTrainedModel:
        """The base, its head as random as the recipe's seed makes it."""
        seed_everything(recipe.seed)
        labels, dtype, attention = self.task.num_labels, self.choice.load_as, self.choice.attention
        model = load_model(recipe.model, labels, dtype=dtype, attention=attention, download=self.download)
        if not isinstance(recipe.method, Probe):  # which reads every token
            answer_at_first_token(model)
        attend_in_fp32(model)
        return model

    def _lane(self, recipe: Recipe, heads: dict[int, dict[str, nn.Module]], alone: bool) -> Lane:
        """A lane as if it were alone: the head and A of its own seed, on the shared base."""
        model: Any = self.base if alone else share(self.base)
        if not alone and self.task.num_labels and recipe.seed not in heads:
            heads[recipe.seed] = dict(heads_of(self._loaded(recipe)))
        for name, head in heads.get(recipe.seed, {}).items():
            put(model, name, head)
        seed_everything(recipe.seed)  # again, so that A does not depend on how much the head drew
        if self.adapters:
            load_adapter(model, self.adapters(recipe))
        elif recipe.start:
            attach_from(recipe.method, model, recipe.start)
        else:
            recipe.method.attach(model)
        if not alone and not can_pack(model):
            raise BadValue(
                "adapted embeddings, adapters in half precision and variants of lora train alone: leave them out"
            )
        lane = Lane(recipe, model.to(self.choice.device), stream=Stream(recipe.seed, self.choice.device))
        seed_everything(recipe.seed)  # and dropout begins anew, as it does for each lane of a pack
        return lane

    def _pack(self) -> None:
        """Lay the lanes side by side; those that are left of a larger pack keep their places in a row."""
        models = [lane.model for lane in self.lanes]
        self.room = self.room or room_of(models)
        sizes = [len(models)] if any(map(drops, models)) else cut(len(models), self.device)
        left, parts = list(self.lanes), []
        for size in sizes:
            own, left = left[:size], left[size:]
            model, table = pack(self.base, [lane.model for lane in own], [lane.stream for lane in own], self.room)
            read_once(model)
            for lane, numbers, gradients in zip(own, table.numbers, table.gradients, strict=True):
                lane.adopt(numbers, gradients)
            parts.append(model)
        self.model = Parts(parts, sizes) if len(parts) > 1 else parts[0]

    def _watch_memory(self, progress: Progress) -> None:
        self.peak_bytes = max(self.peak_bytes, device.used_bytes(self.device))


def _feed(lane: Lane) -> tuple[int, int]:
    """Equal for lanes that train on the same rows at every step."""
    return lane.recipe.seed, lane.recipe.subset

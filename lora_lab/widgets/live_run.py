"""A training run in a thread, without widgets: start, watch, stop and continue it, and classify sentences with it."""

import math
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from lora_lab.accounting.models import layer_of
from lora_lab.adapter_layer import innermost, out_by_in
from lora_lab.layers import LoRALinear
from lora_lab.methods.attach import adapter_layers, report_of
from lora_lab.methods.inspect import product_norm
from lora_lab.methods.lora import LoRA
from lora_lab.methods.merge import at_strength, disabled
from lora_lab.methods.targets import roles_of
from lora_lab.metrics import factor
from lora_lab.training.batches import encode
from lora_lab.training.evaluate import Score, evaluate
from lora_lab.training.member import Member, Progress
from lora_lab.training.pack import Pack
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store
from lora_lab.training.tasks import Split
from lora_lab.training.train import changed_predictions, train_alone
from lora_lab.training.watching import training_lock
from lora_lab.widgets.base import Background

POINTS = 400  # maximum number of points in a loss curve
STRENGTHS = tuple(step / 10 for step in range(21))  # for a plain LoRA; other adapters are only switched on or off
PAUSE = 20  # measuring the weights takes at most 1 / PAUSE of the time


class LiveRun(Background):
    """One training run and its results so far. Any thread may read the results; only the training thread writes them.

    A stopped run is scored and stored as "stopped"; `start` continues it.
    state   "ready", "starting", "loading", "training", "scoring", then "done", "stopped" or "failed"
    moved   [layer, role, |dW| / |W|] for each weight that an adapter changes
    found   the results as JSON: the metric on the test rows, and changed answers with probabilities at each strength
    """

    def __init__(self, recipe: Recipe, store: Store) -> None:
        super().__init__()
        self.recipe, self.store = recipe, store
        self.progress: list[Progress] = []
        self.moved: list[tuple[int, str, float]] = []
        self.run: Run | None = None
        self.found: dict[str, Any] = {}
        self.trainer: Any = None  # a `Pack`, once it is loaded
        self._next_measurement, self._sizes = 0.0, dict[str, float]()

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strengths for which `answer` gives results; empty for tasks without classes or with pairs of texts."""
        method, task = self.recipe.method, self.trainer.task if self.trainer else None
        if task is None or len(task.labels) < 2 or task.validation.seconds or method.trains_base:
            return ()
        return STRENGTHS if isinstance(method, LoRA) and not method.dora and method.init != "pissa" else (0.0, 1.0)

    def answer(self, text: str) -> dict[str, Any]:
        """Return {text, p}, where p holds class probabilities, of shape (strengths, classes), or {text, error}."""
        if self.alive or not self.found or not self.strengths:
            return {"text": text, "error": "Only a trained classifier can answer: train one here first."}
        return {"text": text, "p": self._answers([text])[0]}

    def snapshot(self) -> dict[str, Any]:
        """Return the progress as JSON: metrics (fractions in %) and at most `POINTS` losses, each a mean of several."""
        losses, every = [p.loss for p in list(self.progress)], math.ceil(self.recipe.steps / POINTS)
        means = [fmean(losses[at : at + every]) for at in range(0, len(losses), every)]
        metric = self.trainer.task.metric if self.trainer else ""
        checks = [*self.trainer.members[0].history["validation"]] if self.trainer else []
        return {
            "hash": self.recipe.hash, "steps": self.recipe.steps, "every": every,
            "step": self.progress[-1].step if losses else 0, "left": self.seconds_for(self.recipe.steps - len(losses)),
            "losses": [round(mean, 4) for mean in means],
            "checks": [[scores["step"], round(factor(metric) * scores[metric], 3)] for scores in checks],
            "moved": [[layer, role, float(f"{share:.4g}")] for layer, role, share in self.moved],
        }  # fmt: skip

    # ---- in the training thread

    def _work(self) -> None:
        with training_lock(self._stop) as acquired:
            self.state = "loading" if acquired else "stopped"
            if not acquired:
                return
            if self.trainer is None:
                self.trainer = Pack([self.recipe], callbacks=lambda _: [self._on_step])
            self.store.check_writable()
            if self.run:  # it was stopped: continue
                self.trainer.members[0].status = "training"
                self.trainer.started = time.perf_counter() - self.run.seconds
            self.run, self.found, self.state = None, {}, "training"
            self.stamps.clear()
            run = train_alone(self.trainer, self.store, self._stop)
            self._measure_weights()
            self.found = self._results(run, changed_predictions(self.trainer))
            self.run, self.state = run, "stopped" if run.status == "stopped" else "done"

    @torch.no_grad()
    def _answers(self, texts: Sequence[str]) -> list[list[list[float]]]:
        """Return the probability of each class for each text at each strength: (texts, strengths, classes)."""
        trainer, probabilities = self.trainer, []
        rows = encode(Split(tuple(texts), (0,) * len(texts)), trainer.task, trainer.tokenizer)
        for strength in self.strengths:
            with at_strength(trainer.model, strength):
                logits = evaluate(trainer.model, rows, trainer.pad, trainer.device).by_row  # (texts, classes)
            probabilities.append(torch.tensor(logits).softmax(-1))
        return [[[round(p, 4) for p in row] for row in text] for text in torch.stack(probabilities, 1).tolist()]

    def _results(self, run: Run, changes: dict[str, Any] | None) -> dict[str, Any]:
        assert run.predictions is not None
        metric, rows, steps = self.trainer.task.metric, len(run.predictions), run.history["step"]
        value = factor(metric) * run.metrics[metric]
        results: dict[str, Any] = {
            "metric": metric, "value": value, "rows": rows,
            "made": {name: run.environment.get(name, "") for name in ("date", "hardware", "lora_lab")},
            "words": f"{self.recipe.model} on {self.recipe.task}, {self.recipe.describe()}",
            "steps": steps[-1] if steps else 0, "seconds": run.seconds, "adapter": run.adapter or "",
        }  # fmt: skip
        if metric == "accuracy":  # +- 1.96 standard errors; if all rows are right (wrong), assume one wrong (right)
            p = min(max(run.metrics[metric], 1 / rows), 1 - 1 / rows)
            half = 196 * math.sqrt(p * (1 - p) / rows)
            results |= {"half": half, "low": max(0.0, value - half), "high": min(100.0, value + half)}
        examples = changes.pop("examples") if changes else []
        results |= changes or {}
        if changes and (strengths := self.strengths):
            answers = self._answers([example["text"] for example in examples]) if examples else []
            sentences = [example | {"p": p} for example, p in zip(examples, answers, strict=True)]
            results |= {"labels": self.trainer.task.labels, "strengths": strengths, "sentences": sentences}
        return results

    def _on_step(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.stamps.append(time.monotonic())
        self.state = "scoring" if progress.step == progress.steps or self._stop.is_set() else "training"
        if time.monotonic() > self._next_measurement:
            self._measure_weights()

    @torch.no_grad()
    def _measure_weights(self) -> None:
        began, moved = time.monotonic(), []
        roles = {(p.site.module, p.site.out_slice): p.site.role for p in report_of(self.trainer.model).placements}
        for path, part in adapter_layers(self.trainer.model):
            if part.head or part.unmergeable or hasattr(innermost(part), "dequantized"):
                continue
            if isinstance(part, LoRALinear) and type(part) is LoRALinear:  # without computing B A
                frozen, size = part.frozen_weight(), part.scaling * product_norm(part.lora_A, part.lora_B)
            else:
                frozen = out_by_in(part)
                weight = frozen.float()
                new, _ = part.merged_weights(weight, part.bias)
                if new is weight:  # BitFit moves only biases
                    continue
                size = (new - weight).norm().item()
            if path not in self._sizes:
                self._sizes[path] = frozen.float().norm().item()
            module = path.replace(".base_layer", "")
            role = roles.get((module, getattr(part, "out_slice", None)), "+".join(roles_of(module)))
            moved.append((layer_of(module) or 0, role or module.split(".")[-1], size / self._sizes[path]))
        self.moved = moved
        self._next_measurement = time.monotonic() + PAUSE * (time.monotonic() - began)


class LivePack(Pack):
    """A `Pack` whose curves begin right away: it scores step 0 last, with the adapter and the trained head disabled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.untrained: dict[int, dict[str, float]] = {}  # by seed: members with the same seed have the same head

    def before(self) -> None:
        """Skip scoring before the first step; `record` adds those scores."""

    def record(self, member: Member, score: Score | None) -> Run:
        """Return the run of a member, with its scores at step 0."""
        seed, validations = member.recipe.seed, member.history["validation"]
        if member.recipe.validations and not any(record["step"] == 0 for record in validations):
            if seed not in self.untrained:
                with disabled(member.model):
                    self.untrained[seed] = self._alone(member, "validation").metrics
            validations.insert(0, {"step": 0, **self.untrained[seed]})
        return super().record(member, score)

"""The training panel: choose, guess, press Start, watch an adapter learn, and see what it changed its mind about."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ipywidgets as W

from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.tuning import axis_of
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA
from lora_lab.plots import Curve, TrainingFigure, curve, encoded
from lora_lab.training.assets import problem_with
from lora_lab.training.guard import check_memory
from lora_lab.training.metrics import factor
from lora_lab.training.pairs import VOICES
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store, is_record
from lora_lab.training.tasks import load_task
from lora_lab.training.watching import headless
from lora_lab.widgets.background import start_painted
from lora_lab.widgets.controls import button, slider
from lora_lab.widgets.live import LiveRun
from lora_lab.widgets.live_panel import LivePanel
from lora_lab.widgets.method_controls import MethodControls
from lora_lab.widgets.panel import FULL_WIDTH, cannot, wrapped
from lora_lab.widgets.words import curve_tables, curve_words, mind_table, standing

TASKS = {"minilm": ("rt", "imdb", "tweets"), "smollm2": ("kjv", "shakespeare", *VOICES)}
CLASSES = {"rt": 2, "imdb": 2, "tweets": 3, **dict.fromkeys(TASKS["smollm2"])}  # without reading their texts
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
STEPS = (20, 50, 100, 200, 400, 800)
EARLIER = 3  # runs drawn behind the live one


class TrainPanel(LivePanel):
    """Train an adapter while you watch: LoRA, or any other method.

    The arguments are where the controls start; a value between two stops of a slider is added to it.
    validations  how often the validation rows are scored on the way
    method       in the place of LoRA(rank, alpha, targets)
    store        the folder of finished runs, whose curves are drawn behind the live one
    Raises: NotFound for a task that is not there.
    """

    live: LiveRun | None = None

    def __init__(
        self,
        model: str = "minilm",
        task: str = "rt",
        *,
        rank: int = 8,
        alpha: float = 16,
        targets: Sequence[str] = ("q", "v"),
        lr: float = 2e-3,
        steps: int = 400,
        batch: int = 16,
        seed: int = 0,
        validations: int = 8,
        store: str = "runs",
        method: Method | None = None,
    ) -> None:
        super().__init__("Train an adapter")
        self.store, self.batch, self.seed, self.validations = Store(store), batch, seed, validations
        self._read: dict[tuple[str, int], Run | None] = {}  # by name, and when it was written
        self._judged = {name: (classes, "accuracy" if classes else "perplexity") for name, classes in CLASSES.items()}
        self._make_controls(model, task, lr, steps)
        chosen = method or LoRA(rank=rank, alpha=alpha, targets=tuple(targets))
        self.controls = MethodControls(chosen, _roles(model), self._count_anew)
        self.controls.name.observe(self._usual_rate, "value")
        self._make_buttons()
        self.count, self.table = W.HTML(layout=FULL_WIDTH), W.HTML(layout=FULL_WIDTH)
        self.arrange(
            wrapped(self.model, self.task, self.controls.name),
            wrapped(self.controls.rank, self.controls.alpha, self.lr, self.steps),
            self.controls.targets,
            self.count,
            wrapped(self.guess, self.start_button, self.stop_button, self.reset_button, self.bar),
            self.words,
            self.picture,
            self.table,
        )
        self._settings_changed()

    # ---- what the controls say

    def recipe(self) -> Recipe:
        """The run that the controls describe. Raises: BadValue for a combination that cannot be."""
        method = self.controls.method()
        numbers = {"lr": self.lr.value, "steps": self.steps.value, "batch": self.batch, "seed": self.seed}
        numbers["validations"] = self.validations
        return Recipe(self.model.value, self.task.value, method, **numbers)

    @property
    def judged(self) -> tuple[int | None, str]:
        """The chosen task's number of classes, None for language modelling, and the metric that it is judged by."""
        name = self.task.value
        if name not in self._judged:
            task = load_task(name)
            self._judged[name] = task.num_labels, task.metric
        return self._judged[name]

    @property
    def metric(self) -> str:
        """What the chosen task is judged by."""
        return self.judged[1]

    @property
    def guessed(self) -> float:
        """The guess in the metric's own unit: a share for accuracy, a number for perplexity."""
        return self.guess.value / factor(self.metric)

    # ---- what the buttons do

    def show(self) -> TrainPanel:
        """The panel, ready for Start. With nobody watching (LORA_LAB_HEADLESS=1) it trains here and now."""
        if headless():
            self.work_here(self._prepare())
        return self

    def result(self) -> Run:
        """The finished run. Raises: BadValue, telling what to press, while there is none."""
        if self.live is None:
            raise BadValue("nothing has been trained yet: press Start in the panel above, then run this cell again")
        if self.live.run is None:
            stopped = self.live.state == "stopped" and "it was stopped before it began; press Start"
            reason = self.live.error or stopped or "it is still at work; run this cell again when the panel says done"
            raise BadValue(f"the run has no result: {reason}")
        return self.live.run

    def start(self, _: object = None) -> None:
        """Begin the run that the controls describe; does nothing while one is going on."""
        if self.live and self.live.alive:
            return
        try:
            live = self._prepare()
        except LabError as error:
            self.words.value = cannot(str(error))
            return
        self.table.value = ""
        start_painted(live, self._paint, self.tell)

    def _prepare(self) -> LiveRun:
        """The run that the controls describe, and axes for it. Raises: BadValue for what cannot be or does not fit."""
        recipe = self.recipe()
        check_memory(recipe)
        self.live = LiveRun(recipe, self.store, self.metric, self.guessed if self._guess_made else None)
        self._new_figure()
        return self.live

    def reset(self, _: object = None) -> None:
        """Stop, and clear the curve; finished runs stay in the store and are drawn behind the next."""
        self.stop()
        if self.live and self.live.alive:
            self.words.value = "<b>stopping</b>: press Reset again when the run has ended."
            return
        self.live, self.table.value = None, ""
        self._settings_changed()

    # ---- painting

    def _paint(self, _: object = None) -> None:
        """Bring picture, words and buttons to the run's present state."""
        with self.lock:
            live = self.live
            busy = bool(live and live.alive)
            self.start_button.disabled, self.stop_button.disabled = busy, not busy
            for control in (self.model, self.task, self.guess):  # what the picture is drawn for stays while it is drawn
                control.disabled = busy
            if live is None:
                return
            self.bar.max, self.bar.value = live.recipe.steps, len(live.progress)
            title, words = standing(live)
            self._draw(live.curve(), title, live.guess)
            self.words.value = words
            if live.mind:
                self.table.value = mind_table(live.mind)

    def _draw(self, live: Curve, title: str, guess: float | None = None) -> None:
        """The curves as they are, in the picture, its words and its tables."""
        self.figure.show(live, title, guess)
        self.picture.show(
            encoded(self.figure.figure), curve_words(title, self.metric), *curve_tables(live, self.earlier, self.metric)
        )

    def _new_figure(self) -> None:
        with self.lock:
            self.figure, self.earlier = TrainingFigure(self.metric, self.steps.value), self._earlier()
            self.figure.add_earlier(self.earlier)

    def _earlier(self) -> list[Curve]:
        """Curves of the last finished runs on the same model and task, the newest last."""
        files, found = list[tuple[int, str]](), list[Run]()
        for file in filter(is_record, self.store.folder.glob("*.json")):
            with suppress(OSError):  # taken away since
                files.append((file.stat().st_mtime_ns, file.stem))
        for written, name in sorted(files, reverse=True):
            run = self._kept(name, written)
            if run and (run.recipe.model, run.recipe.task) == (self.model.value, self.task.value) and run.metrics:
                found.append(run)
            if len(found) == EARLIER:
                break
        return [curve(run.recipe.describe(), run.history, self.metric) for run in reversed(found)]

    def _kept(self, name: str, written: int) -> Run | None:
        """A run of the store without its predictions, read once; None for a record that cannot be read."""
        if (name, written) not in self._read:
            try:
                self._read[name, written] = replace(self.store.read(name), predictions=None)
            except LabError:
                self._read[name, written] = None  # no reason not to train
        return self._read[name, written]

    # ---- controls

    def _make_controls(self, model: str, task: str, lr: float, steps: int) -> None:
        there = list(dict.fromkeys([*(name for name in TASKS if not problem_with(name)), model]))
        self.model = W.Dropdown(options=there, value=model, description="model", layout=W.Layout(width="200px"))
        self.task = W.Dropdown(
            options=_tasks(model, task), value=task, description="task", layout=W.Layout(width="200px")
        )
        self.lr = slider("learning rate", RATES, lr, "{:g}")
        self.steps = slider("steps", STEPS, steps, "{:d}")
        self.model.observe(self._model_changed, "value")
        for control in (self.task, self.steps):
            control.observe(self._settings_changed, "value")

    def _make_buttons(self) -> None:
        self.guess = W.IntSlider(70, 50, 100, description="your guess", style={"description_width": "90px"})
        self.guess.add_class("lora-typed")
        self.guess.observe(self._guess_moved, "value")
        self._show_guess()
        self.start_button = button("Start", "play", "train", self.start, button_style="primary")
        self.stop_button = button("Stop", "stop", "end after this step", self.stop, disabled=True)
        self.reset_button = button("Reset", "undo", "clear the curve", self.reset)
        self.bar = W.IntProgress(min=0, max=1, layout=W.Layout(width="160px"))

    def _show_guess(self) -> None:
        named = {"accuracy": (50, 100, 70, "%"), "perplexity": (1, 60, 20, "perplexity")}
        low, high, at, unit = named.get(self.metric, (0, 100, 50, f"{self.metric} x 100"))
        self.guess.min, self.guess.max = 0, max(high, self.guess.max)  # never a moment with min above max
        self.guess.value, self.guess.min, self.guess.max = at, low, high
        self.guess.description = f"guess ({unit})"
        self._guess_made = False  # where the slider begins is nobody's guess

    def _guess_moved(self, _: object) -> None:
        self._guess_made = True

    def _model_changed(self, change: Any) -> None:
        tasks = _tasks(change["new"], None)
        self.task.options, self.task.value = tasks, tasks[0]
        self.controls.show_roles(_roles(change["new"]))
        self._show_guess()
        self._settings_changed()

    def _settings_changed(self, _: object = None) -> None:
        """Another model, task or length: count anew and, where no run is shown, paint axes with the earlier runs."""
        self._count_anew()
        if self.live is None:
            self._new_figure()
            with self.lock:
                self._draw(Curve("", [], [], []), "Press Start to train; earlier runs are drawn behind")
                self.words.value = "<b>ready</b>. Make a guess, then press Start."
                self.bar.value = 0
            self._paint()

    def _count_anew(self, _: object = None) -> None:
        """What would train follows the sliders at once: this path paints nothing."""
        self.count.value = self._counted()

    def _counted(self) -> str:
        try:
            method = self.recipe().method
            count = params(self.model.value, method, self.judged[0])
        except LabError as error:
            return cannot(str(error))
        total = count.total + (0 if method.within else count.trainable)
        scaling = f" Scaling alpha / rank = {method.alpha / method.rank:g}." if isinstance(method, LoRA) else ""
        return (
            f"<b>{count.trainable:,}</b> parameters in the adapter + {count.head:,} in the head: "
            f"{(count.trainable + count.head) / total:.2%} of the model's {total:,} train.{scaling}"
        )

    def _usual_rate(self, _: object = None) -> None:
        """Another method begins at the second of the rates that `compare` tries for it."""
        axis = axis_of(self.controls.method())
        if axis.name == "lr":
            rate = axis.value(1)
            self.lr.options = [(f"{stop:g}", stop) for stop in sorted({*RATES, rate})]
            self.lr.value = rate


def _roles(model: str) -> Sequence[str]:
    """The roles that a target may name on a model; of one that cannot be counted the usual two."""
    try:
        return architecture_of(model).roles
    except LabError:
        return ("q", "v")


def _tasks(model: str, chosen: str | None) -> list[str]:
    """The tasks that suit a model and are there; the tweets only where they were asked for."""
    tasks = [t for t in TASKS.get(model, ("rt",)) if t != "tweets" or not problem_with("tweets")]
    return [*tasks, chosen] if chosen and chosen not in tasks else tasks

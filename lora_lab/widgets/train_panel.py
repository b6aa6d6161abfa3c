"""The training panel: choose, guess, press Start, watch an adapter learn, and see what it changed its mind about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as W

from lora_lab.accounting.sites import Site
from lora_lab.errors import BadValue, LabError
from lora_lab.methods.attach import heads_of, sites_of
from lora_lab.methods.lora import LoRA
from lora_lab.plots import Curve, TrainingFigure, curve
from lora_lab.training.assets import problem_with
from lora_lab.training.guard import check_memory
from lora_lab.training.models import load_model
from lora_lab.training.pairs import VOICES
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store
from lora_lab.training.tasks import load_task
from lora_lab.training.watching import headless
from lora_lab.widgets.background import start_painted
from lora_lab.widgets.live import LiveRun
from lora_lab.widgets.panel import FULL_WIDTH, Panel, wrapped
from lora_lab.widgets.words import cannot, mind_table, standing

TASKS = {"minilm": ("rt", "imdb", "tweets"), "smollm2": ("kjv", "shakespeare", *VOICES)}
ROLES = {"minilm": ("q", "k", "v", "o", "up", "down"), "smollm2": ("q", "k", "v", "o", "gate", "up", "down")}
RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
STEPS = (20, 50, 100, 200, 400, 800)
EARLIER = 3  # runs drawn behind the live one


class TrainPanel(Panel):
    """Train a LoRA adapter while you watch.

    The arguments are where the controls start; a value between two stops of a slider is added to it.
    store   the folder of finished runs, whose curves are drawn behind the live one
    """

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
        store: str = "runs",
    ) -> None:
        super().__init__("Train an adapter")
        self.store, self.batch, self.seed = Store(store), batch, seed
        self.live: LiveRun | None = None
        self._sites: dict[tuple[str, int | None], tuple[list[Site], int, int]] = {}
        self._make_controls(model, task, rank, alpha, lr, steps)
        self._make_targets(targets)
        self._make_buttons()
        self.count, self.table = W.HTML(layout=FULL_WIDTH), W.HTML(layout=FULL_WIDTH)
        self.children = [
            wrapped(self.model, self.task),
            wrapped(self.rank, self.alpha, self.lr, self.steps),
            wrapped(W.HTML("targets", layout=W.Layout(margin="0 16px 0 46px")), self.target_box),
            self.count,
            wrapped(self.guess, self.start_button, self.stop_button, self.reset_button, self.bar),
            self.words,
            self.picture,
            self.table,
        ]
        self._settings_changed()

    # ---- what the controls say

    def recipe(self) -> Recipe:
        """The run that the controls describe. Raises: BadValue for a combination that cannot be."""
        targets = tuple(box.description for box in self.target_box.children if box.value)
        if not targets:
            raise BadValue("tick at least one target: without one, LoRA has no layer to sit beside")
        method = LoRA(rank=self.rank.value, alpha=self.alpha.value, targets=targets)
        numbers = {"lr": self.lr.value, "steps": self.steps.value, "batch": self.batch, "seed": self.seed}
        return Recipe(self.model.value, self.task.value, method, **numbers)

    @property
    def metric(self) -> str:
        """What the chosen task is judged by."""
        return "accuracy" if _classes(self.task.value) else "perplexity"

    @property
    def guessed(self) -> float:
        """The guess in the metric's own unit: a share for accuracy, a number for perplexity."""
        return self.guess.value / 100 if self.metric == "accuracy" else float(self.guess.value)

    # ---- what the buttons do

    def show(self) -> TrainPanel:
        """The panel, ready for Start. With nobody watching (LORA_LAB_HEADLESS=1) it trains here and now."""
        if headless():
            live = self._prepare()
            live.work()
            self._paint()
            if live.error:
                raise BadValue(live.error)
        return self

    def result(self) -> Run:
        """The finished run. Raises: BadValue, telling what to press, while there is none."""
        if self.live is None:
            raise BadValue("nothing has been trained yet: press Start in the panel above, then run this cell again")
        if self.live.run is None:
            reason = self.live.error or "it is still at work; run this cell again when the panel says done"
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
        start_painted(live, self._paint)

    def _prepare(self) -> LiveRun:
        """The run that the controls describe, and axes for it. Raises: BadValue for what cannot be or does not fit."""
        recipe = self.recipe()
        check_memory(recipe)
        self.live = LiveRun(recipe, self.store, self.metric, self.guessed)
        self._new_figure()
        return self.live

    def stop(self, _: object = None) -> None:
        """End the run after its present step; what it has learned is scored and kept."""
        if self.live:
            self.live.stop()

    def reset(self, _: object = None) -> None:
        """Stop, and clear the curve; finished runs stay in the store and are drawn behind the next."""
        self.stop()
        if self.live and self.live.alive:
            self.words.value = "<b>stopping</b>: press Reset again when the run has ended."
            return
        self.live, self.table.value = None, ""
        self._settings_changed()

    # ---- painting

    def _paint(self) -> None:
        """Bring picture, words and buttons to the run's present state."""
        with self.lock:
            live = self.live
            busy = bool(live and live.alive)
            self.start_button.disabled, self.stop_button.disabled = busy, not busy
            for control in (self.model, self.task, self.guess):  # what the picture is drawn for stays while it is drawn
                control.disabled = busy
            if live is None:
                return
            self.bar.value, self.bar.max = len(live.progress), live.recipe.steps
            title, words = standing(live)
            self.figure.show(live.curve(), title, live.guess)
            self.picture.value = self.figure.png()
            self.words.value = words
            if live.mind:
                self.table.value = mind_table(live.mind)

    def _new_figure(self) -> None:
        with self.lock:
            self.figure = TrainingFigure(self.metric, self.steps.value)
            self.figure.add_earlier(self._earlier())

    def _earlier(self) -> list[Curve]:
        """Curves of the last finished runs on the same model and task."""
        try:
            runs = self.store.runs()
        except LabError:
            return []  # a record that cannot be read is no reason not to train
        same = [r for r in runs if (r.recipe.model, r.recipe.task) == (self.model.value, self.task.value) and r.metrics]
        return [curve(r.recipe.describe(), r.history, self.metric) for r in same[-EARLIER:]]

    # ---- controls

    def _make_controls(self, model: str, task: str, rank: int, alpha: float, lr: float, steps: int) -> None:
        there = list(dict.fromkeys([*(name for name in TASKS if not problem_with(name)), model]))
        self.model = W.Dropdown(options=there, value=model, description="model", layout=W.Layout(width="200px"))
        self.task = W.Dropdown(
            options=_tasks(model, task), value=task, description="task", layout=W.Layout(width="200px")
        )
        self.rank = _slider("rank", RANKS, rank, "{:d}")
        self.alpha = _slider("alpha", ALPHAS, alpha, "{:g}")
        self.lr = _slider("learning rate", RATES, lr, "{:g}")
        self.steps = _slider("steps", STEPS, steps, "{:d}")
        self.model.observe(self._model_changed, "value")
        for control in (self.task, self.steps):
            control.observe(self._settings_changed, "value")
        for control in (self.rank, self.alpha, self.lr):
            control.observe(self._count_anew, "value")

    def _make_targets(self, chosen: Sequence[str]) -> None:
        self.target_box = W.Box(layout=W.Layout(display="flex", flex_flow="row wrap"))
        self._show_roles(chosen)

    def _show_roles(self, chosen: Sequence[str]) -> None:
        narrow = W.Layout(width="72px")
        roles = dict.fromkeys([*ROLES.get(self.model.value, ("q", "v")), *chosen])
        boxes = [W.Checkbox(value=r in chosen, description=r, indent=False, layout=narrow) for r in roles]
        for box in boxes:
            box.observe(self._count_anew, "value")
        self.target_box.children = boxes

    def _make_buttons(self) -> None:
        self.guess = W.IntSlider(70, 50, 100, description="your guess", style={"description_width": "90px"})
        self._show_guess()
        self.start_button = W.Button(description="Start", icon="play", button_style="primary", tooltip="train")
        self.stop_button = W.Button(description="Stop", icon="stop", disabled=True, tooltip="end after this step")
        self.reset_button = W.Button(description="Reset", icon="undo", tooltip="clear the curve")
        for button in (self.start_button, self.stop_button, self.reset_button):
            button.layout.width = "90px"
        self.bar = W.IntProgress(min=0, max=1, layout=W.Layout(width="160px"))
        self.start_button.on_click(self.start)
        self.stop_button.on_click(self.stop)
        self.reset_button.on_click(self.reset)

    def _show_guess(self) -> None:
        low, high, at, unit = (50, 100, 70, "%") if self.metric == "accuracy" else (1, 60, 20, "perplexity")
        self.guess.min, self.guess.max = 0, max(high, self.guess.max)  # never a moment with min above max
        self.guess.value, self.guess.min, self.guess.max = at, low, high
        self.guess.description = f"guess ({unit})"

    def _model_changed(self, change: Any) -> None:
        tasks = _tasks(change["new"], None)
        self.task.options, self.task.value = tasks, tasks[0]
        self._show_roles(("q", "v"))
        self._show_guess()
        self._settings_changed()

    def _settings_changed(self, _: object = None) -> None:
        """Another model, task or length: count anew and, where no run is shown, paint axes with the earlier runs."""
        self._count_anew()
        if self.live is None:
            self._new_figure()
            with self.lock:
                self.figure.show(Curve("", [], [], []), "Press Start to train; earlier runs are drawn behind")
                self.picture.value = self.figure.png()
                self.words.value = "<b>ready</b>. Make a guess, then press Start."
                self.bar.value = 0
            self._paint()

    def _count_anew(self, _: object = None) -> None:
        """What would train follows the sliders at once: this path paints nothing."""
        self.count.value = self._counted()

    def _counted(self) -> str:
        try:
            method = self.recipe().method
            sites, base, head = self._model_facts()
            adapter = method.count(sites)  # type: ignore[arg-type]
        except LabError as error:
            return cannot(str(error))
        scaling = self.alpha.value / self.rank.value
        share = (adapter + head) / (base + adapter)
        return (
            f"<b>{adapter:,}</b> parameters in the adapter + {head:,} in the head: {share:.2%} of the model's "
            f"{base + adapter:,} train. Scaling alpha / rank = {scaling:g}."
        )

    def _model_facts(self) -> tuple[list[Site], int, int]:
        """The model's sites, its parameters, and those of its head; read once a model."""
        classes = _classes(self.task.value)
        key = (self.model.value, classes)
        if key not in self._sites:
            model = load_model(self.model.value, classes)
            head = sum(p.numel() for _, module in heads_of(model) for p in module.parameters())
            self._sites[key] = (sites_of(model), sum(p.numel() for p in model.parameters()), head)
        return self._sites[key]


def _tasks(model: str, chosen: str | None) -> list[str]:
    """The tasks that suit a model and are there; the tweets only where they were asked for."""
    tasks = [t for t in TASKS.get(model, ("rt",)) if t != "tweets" or not problem_with("tweets")]
    return [*tasks, chosen] if chosen and chosen not in tasks else tasks


def _classes(task: str) -> int | None:
    """Of a bundled task without reading its texts; a file of one's own is read."""
    if task in TASKS["smollm2"]:
        return None
    return load_task(task).num_labels if Path(task).is_file() else 3 if task == "tweets" else 2


def _slider(name: str, stops: Sequence[float], value: float, form: str) -> W.SelectionSlider:
    options = [(form.format(stop), stop) for stop in sorted({*stops, value})]
    style, layout = {"description_width": "90px"}, W.Layout(width="290px")
    return W.SelectionSlider(options=options, value=value, description=name, style=style, layout=layout)

"""Live training: the curve among those of other seeds, how far each weight moved, and which answers changed.

The browser draws (`js/train_panel.js`); `live_run.py` trains, and classifies sentences at any strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import traitlets as T

from lora_lab.errors import BadValue, LabError
from lora_lab.experiments.tuning import axis_of
from lora_lab.methods import REGISTRY
from lora_lab.methods.base import Method
from lora_lab.methods.lora import LoRA
from lora_lab.metrics import factor
from lora_lab.training.memory_check import check_memory
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store
from lora_lab.training.tasks import load_task
from lora_lab.training.watching import headless
from lora_lab.widgets.base import LivePanel
from lora_lab.widgets.live_run import LiveRun
from lora_lab.widgets.train_setup import CLASSES, Kept, counted, offers, per_rank

SETTINGS = ("model", "task", "method", "rank", "alpha", "targets", "lr", "steps", "seed")


class TrainPanel(LivePanel, file="train_panel.js"):
    """Train an adapter while you watch: LoRA or any other method.

    The arguments are the initial values of the controls.
    validations  how often the validation rows are scored during the run
    method       replaces LoRA(rank, alpha, targets)
    store        the folder of finished runs: other seeds of this recipe are drawn as a ribbon, other recipes as lines
    seeds        a second store, with other seeds only; can be set later: `panel.seeds = "seeds.zip"`
    guess        the reader's prediction: a percentage for shares, otherwise in the metric's own unit
    Raises: NotFound for an unknown task, BadValue for impossible settings.
    """

    offers = T.Dict().tag(sync=True)  # the values in menus and on sliders
    model, task, method = (T.Unicode().tag(sync=True) for _ in range(3))
    rank = T.Int().tag(sync=True)
    alpha = T.Float().tag(sync=True)
    targets = T.List(T.Unicode()).tag(sync=True)
    lr = T.Float().tag(sync=True)
    steps = T.Int().tag(sync=True)
    seed = T.Int().tag(sync=True)
    guess = T.Float(None, allow_none=True).tag(sync=True)
    seeds = T.Any()  # a path or None
    strength = T.Float(1.0).tag(sync=True)  # of the adapter, on the dial
    setup = T.Dict().tag(sync=True)  # derived from the settings, see `_update_setup`
    # live: the run in progress, see `LiveRun.snapshot`
    found = T.Dict().tag(sync=True)  # its results, see `LiveRun.found`
    answer = T.Dict().tag(sync=True)  # {text, p: (strengths, classes)} of the reader's sentence, or {text, error}

    def __init__(
        self, model: str = "minilm", task: str = "rt", *, rank: int = 8, alpha: float = 16,
        targets: Sequence[str] | str = ("q", "v"), lr: float = 2e-3, steps: int = 400, batch: int = 16, seed: int = 0,
        validations: int = 8, store: str | Path = "runs", seeds: str | Path | None = None,
        method: Method | None = None, guess: float | None = None,
    ) -> None:  # fmt: skip
        self.store, self.batch, self.validations = Store(store), batch, validations
        self.kept = Kept(self.store, Store(seeds) if seeds else None)
        lora = method if isinstance(method, LoRA) else LoRA(rank=rank, alpha=alpha, targets=targets)  # type: ignore[arg-type]
        self.given = method or lora
        self._tasks = {name: (classes, "accuracy" if classes else "perplexity") for name, classes in CLASSES.items()}
        super().__init__(
            offers=offers(model, str(task), lora, lr, steps),
            model=model, task=str(task), method=self.given.name, rank=lora.rank, alpha=lora.alpha,
            targets=list(lora.targets), lr=lr, steps=int(steps), seed=int(seed), guess=guess, seeds=seeds,
            live={"state": "ready"},
        )  # fmt: skip
        self._update_setup()
        self.recipe()  # raises for impossible settings
        self.observe(lambda _: self._update_setup(), SETTINGS)
        self.observe(self._reset_rate, "method")
        self.observe(self._open_seeds, "seeds")

    # ---- settings

    def recipe(self) -> Recipe:
        """Return the recipe that the controls describe. Raises: BadValue for impossible settings."""
        return Recipe(
            self.model, self.task, self._method(), lr=self.lr, steps=self.steps, batch=self.batch, seed=self.seed,
            validations=self.validations,
        )  # fmt: skip

    def _method(self) -> Method:
        if self.method != LoRA.name:
            return self.given if self.given.name == self.method else REGISTRY[self.method]()
        if not self.targets:
            raise BadValue("tick at least one target: without one, LoRA has no layer to adapt")
        base = self.given if isinstance(self.given, LoRA) else LoRA()  # keeps the variants
        return replace(base, rank=self.rank, alpha=self.alpha, targets=tuple(self.targets))

    def judged(self) -> tuple[int | None, str]:
        """Return the task's number of classes, None for language modeling, and the name of its metric."""
        if self.task not in self._tasks:
            task = load_task(self.task)
            self._tasks[self.task] = task.num_labels, task.metric
        return self._tasks[self.task]

    def _update_setup(self) -> None:
        """Derive `setup` from the settings: the parameter count, other runs, or an error."""
        if self.task not in (tasks := self.offers["tasks"][self.model]):
            self.task = tasks[0]
        classes, metric = self.judged()
        setup: dict[str, Any] = {"metric": metric, "factor": factor(metric), "chance": 100 / classes if classes else 0}
        setup["roles"] = {**(roles := per_rank(self.model)), **{t: 0 for t in self.targets if t not in roles}}
        try:
            recipe = self.recipe()
            self.setup = setup | counted(recipe, classes) | self.kept.beside(recipe, metric)
        except LabError as error:
            self.setup = setup | {"error": str(error)}

    def _open_seeds(self, _: Any) -> None:
        self.kept.seeds = Store(self.seeds) if self.seeds else None
        self._update_setup()

    def _reset_rate(self, _: Any) -> None:
        """Start a newly chosen method at the second rate that `compare` tries for it."""
        axis = axis_of(self._method())
        if axis.name == "lr":
            self.offers = self.offers | {"rates": sorted({*self.offers["rates"], axis.grid(4)[1]})}
            self.lr = axis.grid(4)[1]

    def describe(self) -> str:
        """Describe the panel in plain words."""
        if not (found := self.found):
            return f"Training panel: {self.model} on {self.task}, {self.setup.get('words')}. Not trained yet."
        interval = f" (95% interval {found['low']:.1f} to {found['high']:.1f})" if "low" in found else ""
        words = (
            f"Training panel: {found['words']}. {found['metric']} {found['value']:.1f}{interval} on {found['rows']:,} "
            f"held-out test rows after {found['steps']} steps."
        )
        if "changed" in found:
            words += f" It changed {found['changed']} of {found['of']} answers, {found['better']} for the better."
        return words

    # ---- training

    def show(self) -> TrainPanel:
        """Return the panel, ready for Start; with LORA_LAB_HEADLESS=1, train before returning.

        Raises: BadValue if that training fails.
        """
        if headless():
            self.start()
            if error := self.live.get("error"):
                raise BadValue(error)
        return self

    def start(self) -> None:
        """Train what the controls describe, or continue a stopped run; do nothing while a run is in progress."""
        if self.busy:
            return
        try:
            check_memory(recipe := self.recipe())
            goes_on = self.work and self.work.goes_on and self.work.recipe == recipe
            work, guess = self.work if goes_on else LiveRun(recipe, self.store), self.guess
            self._update_setup()  # the store may have new runs
            self.found, self.answer = {}, {}
            self._begin(work, lambda: self._paint(work, guess))
        except LabError as error:
            self._tell(str(error))

    def result(self) -> Run:
        """Return the finished run. Raises: BadValue, saying what to press, if there is none."""
        if self.work is None:
            raise BadValue("nothing has been trained yet: press Start in the panel above, then run this cell again")
        if self.work.run is None:
            stopped = self.work.state == "stopped" and "it was stopped before it began; press Start"
            reason = self.work.error or stopped or "it is still at work; run this cell again when the panel says done"
            raise BadValue(f"the run has no result: {reason}")
        return self.work.run

    def _do(self, content: dict[str, Any]) -> None:
        """Handle a button, or a sentence to classify."""
        if content["do"] == "start":
            self.start()
        elif content["do"] == "stop":
            self.stop()
        elif self.work:
            self.answer = self.work.answer(content["text"])

    def _paint(self, work: LiveRun, guess: float | None) -> None:
        """Update the browser; called several times a second during training."""
        with self.lock, self.hold_sync():
            busy = work.alive  # read before `found`: once the run is not busy, `found` is complete
            self.live = work.snapshot() | {"busy": busy, "guess": guess}
            self.found = {} if busy else work.found

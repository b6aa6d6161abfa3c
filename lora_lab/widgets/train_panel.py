"""Live training: a run's curve among those of other seeds, how far each weight moved, and which answers changed.

The browser draws the panel (`js/train_panel.js`); `live_run.py` trains, and classifies sentences at any strength.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import traitlets as T

from lora_lab.accounting.models import architecture_of
from lora_lab.accounting.params import params
from lora_lab.errors import BadValue, LabError, NotFound
from lora_lab.experiments.tuning import axis_of
from lora_lab.files import as_path
from lora_lab.methods import REGISTRY
from lora_lab.methods.base import Method, one_of, plain
from lora_lab.methods.lora import LoRA
from lora_lab.metrics import factor
from lora_lab.training.assets import problem_with
from lora_lab.training.memory_check import check_memory
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run, Store
from lora_lab.training.tasks import VOICES, load_task
from lora_lab.widgets.base import LivePanel
from lora_lab.widgets.live_run import LiveRun

TASKS = {"minilm": ("rt", "imdb", "tweets"), "smollm2": ("kjv", "shakespeare", *VOICES)}
CLASSES = {"rt": 2, "imdb": 2, "tweets": 3, **dict.fromkeys(TASKS["smollm2"])}  # known without reading the texts
RANKS, ALPHAS = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16, 32, 64, 128)
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)
STEPS = (20, 50, 100, 200, 400, 800)
EARLIER = 3  # maximum number of runs of other recipes that are drawn
READ = 200  # how many of a store's newest records are read
SETTINGS = ("model", "task", "method", "rank", "alpha", "targets", "lr", "steps", "seed")


class TrainPanel(LivePanel, file="train_panel.js"):
    """Train an adapter while you watch: LoRA or any other method.

    The arguments are the initial values of the controls.
    validations  how many times the validation rows are scored during the run
    method       replaces LoRA(rank, alpha, targets)
    store        the folder of finished runs: other seeds of this recipe are drawn as a band, other recipes as lines
    seeds        a second store, with other seeds only; it can be set later: `panel.seeds = "seeds.zip"`
    guess        the reader's prediction: in percent for metrics between 0 and 1, otherwise in the metric's own unit
    Raises: NotFound for an unknown task, and BadValue for impossible settings.
    """

    offers = T.Dict().tag(sync=True)  # the values in menus and on sliders
    model, task, method = (T.Unicode().tag(sync=True) for _ in range(3))
    rank, steps, seed = (T.Int().tag(sync=True) for _ in range(3))
    alpha, lr = (T.Float().tag(sync=True) for _ in range(2))
    targets = T.List(T.Unicode()).tag(sync=True)
    guess = T.Float(None, allow_none=True).tag(sync=True)
    seeds = T.Any()  # a path or None
    strength = T.Float(1.0).tag(sync=True)  # strength of the adapter, on the dial
    setup = T.Dict().tag(sync=True)  # derived from the settings, see `_update_setup`
    # live: the run in progress, see `LiveRun.snapshot`
    found = T.Dict().tag(sync=True)  # the run's results, see `LiveRun.found`
    answer = T.Dict().tag(sync=True)  # {text, p: (strengths, classes)} of the reader's sentence, or {text, error}

    def __init__(
        self, model: str = "minilm", task: str = "rt", *, rank: int = 8, alpha: float = 16,
        targets: Sequence[str] | str = ("q", "v"), lr: float = 2e-3, steps: int = 400, batch: int = 16, seed: int = 0,
        validations: int = 8, store: str | Path = "runs", seeds: str | Path | None = None,
        method: Method | None = None, guess: float | None = None,
    ) -> None:  # fmt: skip
        self.store, self.batch, self.validations = Store(store), batch, validations
        lora = method if isinstance(method, LoRA) else LoRA(rank=rank, alpha=alpha, targets=targets)  # type: ignore[arg-type]
        self.given = lora if method is None else method
        model, task = str(model), str(task)
        # raises for values that the panel would round or cannot sort
        recipe = Recipe(model, task, self.given, lr=lr, steps=steps, batch=batch, seed=seed, validations=validations)
        # for each task, its number of classes (None for language modeling), its metric, and its file's fingerprint
        self._tasks: dict[str, tuple[int | None, str, str | None]] = {
            name: (classes, "accuracy" if classes else "perplexity", None) for name, classes in CLASSES.items()
        }
        super().__init__(
            offers=offers(model, task, self.given, lora, recipe.lr, recipe.steps),
            model=model, task=task, method=self.given.name, rank=lora.rank, alpha=lora.alpha,
            targets=list(lora.targets), lr=recipe.lr, steps=recipe.steps, seed=recipe.seed, guess=plain(guess),
            seeds=seeds, live={"state": "ready"},
        )  # fmt: skip
        self._read_stores()
        self.recipe()  # raises for impossible settings
        self.observe(self._react, SETTINGS)
        self.observe(self._reset_rate, "method")
        self.observe(self._read_stores, "seeds")

    # ---- settings

    def recipe(self) -> Recipe:
        """Return the recipe that the controls describe. Raises: BadValue for impossible settings."""
        names = ("model", "task", "lr", "steps", "batch", "seed", "validations")
        return Recipe(method=self._method(), **{name: getattr(self, name) for name in names})

    def _method(self) -> Method:
        if self.method != LoRA.name:
            return self.given if self.given.name == self.method else REGISTRY[self.method]()
        if not self.targets:
            raise BadValue("tick at least one target: without one, LoRA has no layer to adapt")
        base = self.given if isinstance(self.given, LoRA) else LoRA()  # keeps the variants
        return replace(base, rank=self.rank, alpha=self.alpha, targets=tuple(self.targets))

    @T.validate("model", "method")
    def _check_offered(self, proposal: Any) -> str:
        name = proposal["trait"].name
        one_of(name, proposal["value"], tuple(self.offers[f"{name}s"]))
        return str(proposal["value"])

    def _react(self, change: Any) -> None:
        """Update `setup`; choose a task for a new model, and add a new task to the menu."""
        tasks = self.offers["tasks"][self.model]
        if self.task not in tasks and change.name != "task":
            self.task = tasks[0]
        self._update_setup()  # raises if there is no such task
        if self.task not in tasks:
            self.offers = self.offers | {"tasks": self.offers["tasks"] | {self.model: [*tasks, self.task]}}

    def _update_setup(self) -> None:
        """Derive `setup` from the settings: the parameter count, other runs, or an error."""
        if self.task not in self._tasks:
            read = load_task(self.task)
            self._tasks[self.task] = read.num_labels, read.metric, read.data
        classes, metric, _ = self._tasks[self.task]
        setup: dict[str, Any] = {"metric": metric, "factor": factor(metric), "chance": 100 / classes if classes else 0}
        setup["roles"] = {**(roles := per_rank(self.model)), **{t: 0 for t in self.targets if t not in roles}}
        try:
            recipe = self.recipe()
            runs, seeds = ([run for run in stored if self._is_current(run)] for stored in self._stored)
            self.setup = setup | counted(recipe, classes) | beside(recipe, metric, runs, seeds)
        except LabError as error:
            self.setup = setup | {"error": str(error)}

    def _is_current(self, run: Run) -> bool:
        """Whether a finished run of this task was trained on the file as it is now."""
        return run.status in FINISHED and run.environment.get("data") in (None, self._tasks[self.task][2])

    def _read_stores(self, _: Any = None) -> None:
        if self.seeds and not as_path(self.seeds).exists():
            raise NotFound(f"there is no store '{self.seeds}' with runs of other seeds")
        if self.task not in CLASSES:
            self._tasks.pop(self.task, None)  # the file may have changed
        self._stored = finished(self.store), finished(Store(self.seeds)) if self.seeds else []
        self._update_setup()

    def _reset_rate(self, _: Any) -> None:
        """Set the learning rate of a newly chosen method to the second rate that `compare` tries for it."""
        axis = axis_of(self._method())
        if axis.name == "lr":
            rate = axis.grid(4)[1]
            self.offers = self.offers | {"rates": sorted({*self.offers["rates"], rate})}
            self.lr = rate

    def describe(self) -> str:
        if not (found := self.found):
            what = self.setup.get("words") or self.setup["error"]
            return f"Training panel: {self.model} on {self.task}, {what}. Not trained yet."
        interval = f" (95% interval {found['low']:.1f} to {found['high']:.1f})" if "low" in found else ""
        test = f"on {found['rows']:,} held-out test rows after {found['steps']} steps"
        words = f"Training panel: {found['words']}. {found['metric']} {found['value']:.1f}{interval} {test}."
        if "changed" in found:
            words += f" It changed {found['changed']} of {found['of']} answers, {found['better']} for the better."
        return words

    # ---- training

    def _prepare(self) -> LiveRun:
        """Return the run that the controls describe; `start` continues it if it was stopped."""
        recipe, work = self.recipe(), self.work
        check_memory(recipe)
        member = work.trainer.members[0] if work and work.trainer else None
        ended = member is not None and member.ended and not member.error  # stopped, or the result could not be stored
        if not ended or work.state == "done" or work.recipe != recipe:
            work = LiveRun(recipe, self.store)
        self._read_stores()  # the stores may contain new runs
        self.found, self.answer, self._guessed = {}, {}, self.guess
        return work

    def result(self) -> Run:
        """Return the finished run; after a kernel restart, the stored run of the recipe that the controls describe.

        Raises: BadValue if no run has finished; the message says what to press.
        """
        if self.work is None:
            if (run := self.store.find(self.recipe())) and self._is_current(run):
                return run
            raise BadValue("nothing has been trained yet: press Start in the panel above, then run this cell again")
        if self.work.run is None:
            stopped = self.work.state == "stopped" and "it was stopped before it began; press Start"
            reason = self.work.error or stopped or "it is still training; run this cell again when the panel says done"
            raise BadValue(f"the run has no result: {reason}")
        return self.work.run

    def _do(self, content: dict[str, Any]) -> None:
        if content["do"] != "ask":
            super()._do(content)
        elif self.work:
            self.answer = self.work.answer(content["text"])

    def _paint(self, work: LiveRun, busy: bool) -> dict[str, Any]:
        self.found = {} if busy else work.found
        if not busy:  # so that the next recipe shows this run among the earlier runs
            self._read_stores()
        return work.snapshot() | {"guess": self._guessed}


def offers(model: str, task: str, given: Method, lora: LoRA, lr: float, steps: int) -> dict[str, Any]:
    """Return the values for menus and sliders, including the given ones; offer tweets only if they are available."""
    models = [name for name in TASKS if not problem_with(name)]
    tasks = {name: list(TASKS.get(name, ("rt",))) for name in dict.fromkeys([*models, model])}
    tasks = {name: [t for t in names if t != "tweets" or not problem_with(t)] for name, names in tasks.items()}
    tasks[model] = list(dict.fromkeys([*tasks[model], task]))
    return {
        "models": list(tasks), "tasks": tasks, "methods": list(dict.fromkeys([*REGISTRY, given.name])),
        "ranks": sorted({*RANKS, lora.rank}), "alphas": sorted({*ALPHAS, lora.alpha}),
        "rates": sorted({*RATES, lr}), "steps": sorted({*STEPS, steps}),
    }  # fmt: skip


@cache
def per_rank(model: str) -> dict[str, int]:
    """Return {role: parameters of rank-1 adapters on all layers with this role}."""
    try:
        roles = architecture_of(model).roles
        return {role: params(model, LoRA(rank=1, alpha=1, targets=(role,))).trainable for role in roles}
    except LabError:
        return {"q": 0, "v": 0}  # the model's parameters cannot be counted


def counted(recipe: Recipe, classes: int | None) -> dict[str, Any]:
    """Count trained parameters: for `plain` LoRA, rank times `per_rank`, summed over targets. Raises: see `params`."""
    method, count = recipe.method, params(recipe.model, recipe.method, classes)
    return {
        "hash": recipe.hash, "words": f"{recipe.describe()}, {recipe.steps} steps", "within": method.trains_base,
        "trains": count.trainable, "head": count.head, "total": count.total,
        "plain": isinstance(method, LoRA) and not (method.variants or method.rank_pattern),
    }  # fmt: skip


def beside(recipe: Recipe, metric: str, runs: list[Run], seeds: list[Run]) -> dict[str, list[Any]]:
    """Return {others, earlier}: validation curves as [[step, value], ...]; fractions, such as accuracy, in percent.

    others    runs of the recipe with other seeds, from `runs` and `seeds`, each with its value on the test rows
    earlier   the first `EARLIER` of `runs` with another recipe but the same model and task, labeled with what differs
    """
    others, earlier, scale = list[Any](), list[Any](), factor(metric)
    settings = {*recipe.describe().split(", "), f"{recipe.steps} steps"}
    free = {"seed": 0, "validations": 0}  # settings in which `others` may differ
    for i, run in enumerate([*runs, *seeds]):
        if (run.recipe.model, run.recipe.task) != (recipe.model, recipe.task) or metric not in run.metrics:
            continue
        curve: dict[str, Any] = {"checks": [[v["step"], scale * v[metric]] for v in run.history["validation"]]}
        if run.recipe.settings() | free == recipe.settings() | free:
            if run.recipe.seed != recipe.seed:
                others.append(curve | {"value": scale * run.metrics[metric]})
        elif i < len(runs) and len(earlier) < EARLIER:
            words = [*run.recipe.describe().split(", "), f"{run.recipe.steps} steps"]
            earlier.append(curve | {"label": ", ".join(word for word in words if word not in settings)})
    return {"others": others, "earlier": earlier}


def finished(store: Store) -> list[Run]:
    """Return the finished runs of a store, newest first; skip records that cannot be read."""
    files, runs = store.records(), list[Run]()
    files.sort(key=lambda file: (file.stat().st_mtime_ns if isinstance(file, Path) else 0, file.stem), reverse=True)
    for file in files[:READ]:
        with suppress(LabError):
            runs.append(replace(store.read(file.stem), predictions=None))
    return [run for run in runs if run.status in FINISHED]

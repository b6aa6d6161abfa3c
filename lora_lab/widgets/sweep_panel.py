"""The playground: a map of finished runs over rate, rank and alpha, where untried cells can be trained.

The browser draws the panel (`js/sweep_panel.js`); `experiments/playground.py` computes means, gaps and lines.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import traitlets as T

from lora_lab.errors import BadValue
from lora_lab.experiments import playground
from lora_lab.experiments.playground import Cell, Playground
from lora_lab.files import as_path
from lora_lab.methods.base import words
from lora_lab.methods.lora import LoRA
from lora_lab.training.recipe import Recipe, check_fields
from lora_lab.training.runs import FINISHED, Run, Store, stores
from lora_lab.widgets.base import Background, LivePanel

VIEWS = ("rank", "alpha")
START = ((1, 8, 64), (16.0,), (5e-4, 1e-3, 2e-3, 4e-3))  # ranks, alphas and rates of a map without runs
LENGTH = {"steps": 200, "batch": 8}


class LiveSweep(Background):
    """A sweep that trains recipes and stores the runs. Any thread may read its attributes.

    left     hashes of the recipes that have neither finished nor failed yet
    ended    queue of finished and failed runs, which the panel consumes
    pack     the recipes that are training now
    losses   {hash: training loss at every step so far}; NaN for steps before a restart
    earlier  a stopped sweep whose curves this one continues
    """

    def __init__(self, recipes: Sequence[Recipe], store: Store, earlier: "LiveSweep | None" = None) -> None:
        super().__init__()
        self.recipes = {recipe.hash: recipe for recipe in recipes}
        self.store, self.left, self.pack = store, set(self.recipes), list[Recipe]()
        self.ended: deque[Run] = deque()
        self.losses: dict[str, list[float]] = earlier.losses if earlier else {}

    def steps_left(self) -> int:
        """Return the number of steps that are left in all runs together."""
        return sum(self.recipes[name].steps - len(self.losses.get(name, ())) for name in list(self.left))

    # ---- in the sweeping thread

    def _work(self) -> None:
        from lora_lab.experiments.sweep import Sweep  # imports torch, which showing stored runs does not need
        from lora_lab.widgets.live_run import LivePack

        swept = Sweep(self.store, stop=self._stop, on_event=self._on_event, pack=LivePack).run(self.recipes.values())
        for run in swept.runs:  # including those already in the store
            self._on_event("run", {"run": run})
        self.state = "stopped" if self.left else "done"

    def _on_event(self, event: str, facts: dict[str, Any]) -> None:
        if event == "pack":
            self.pack, self.state = facts["recipes"], "loading"
        elif event == "step":
            progress, losses = facts["progress"], self.losses.setdefault(facts["recipe"].hash, [])
            self.stamps.append(time.monotonic())
            del losses[progress.step - 1 :]  # a stopped run resumes from its last validation
            losses.extend([math.nan] * (progress.step - 1 - len(losses)))
            losses.append(progress.loss)
            self.state = "training" if progress.step < progress.steps else "scoring"
        elif event == "run" and facts["run"].status in (*FINISHED, "failed") and facts["run"].recipe.hash in self.left:
            self.left.discard(facts["run"].recipe.hash)
            self.ended.append(facts["run"])


class SweepPanel(LivePanel, file="sweep_panel.js"):
    """A map of runs, with the learning rate on the x axis and the rank or alpha on the y axis. It trains untried cells.

        SweepPanel()                  the runs that ship with the lab, and your runs of the same kind in `into`
        SweepPanel("runs")            your own store, or a folder of students' stores, with a dot for each run
        SweepPanel("runs", task="opinions.csv", rank=(1, 2), lr=(1e-3, 4e-3), steps=60)      a new store to fill

    store     a store of runs, its zip file, or a folder of stores; None for the runs that ship
    into      the store for runs trained here; by default `store` if it is a folder of runs, else "runs"
    model, task, fields   settings that all runs share; by default those of the largest group in the store
    rank, alpha, lr       values to offer in addition to those already tried
    seed      the seeds to train for each cell
    view      the rows of the map: "rank" or "alpha"
    picked    untried cells to train, [[rank, alpha, lr], ...]
    guess     the reader's prediction about the best rate: {view: "alone", "root" or "whole"}
    Raises: NotFound if a folder does not exist, and BadValue for an unreadable record or an invalid setting.
    """

    data = T.Dict().tag(sync=True)  # see `playground.shown`
    losses = T.Bytes().tag(sync=True)
    # live: the sweep in progress: {state, busy, error, runs, share, step, left, curves}
    view = T.Enum(VIEWS, "rank").tag(sync=True)
    targets = T.Unicode().tag(sync=True)
    rank = T.Int(min=0).tag(sync=True)
    alpha, lr = (T.Float(min=0).tag(sync=True) for _ in range(2))
    picked: T.List = T.List().tag(sync=True)
    seeds = T.List(T.Int()).tag(sync=True)
    guess = T.Dict().tag(sync=True)
    question = T.Unicode().tag(sync=True)  # the title before the reader's guess; the later title names the best line

    def __init__(
        self, store: str | Path | None = None, *, into: str | Path | None = None,
        model: str | None = None, task: str | None = None, targets: Sequence[str] | str | None = None,
        rank: Sequence[int] | int = (), alpha: Sequence[float] | float = (), lr: Sequence[float] | float = (),
        seed: Sequence[int] | int = (0, 1, 2), view: str | None = None, picked: Sequence[Sequence[float]] = (),
        **fields: Any,
    ) -> None:  # fmt: skip
        targets = ",".join(words(targets)) if targets else None  # as in `Cell`
        folder, runs = None if store is None else as_path(store), None
        nested = stores(folder) if folder and folder.exists() else set()
        if not into:  # a zip file and a folder of stores are only read
            into = folder if folder and not folder.is_file() and (not nested or folder in nested) else "runs"
        self.store = Store(into)
        axes = [np.atleast_1d(values).tolist() for values in (rank, alpha, lr)]
        filled: list[Any] = [values or start for values, start in zip(axes, START, strict=True)]
        seeds = np.atleast_1d(seed).tolist()
        for r, a, rate, s in zip_longest(*axes, seeds, fillvalue=1):  # raises for impossible values
            Recipe("minilm", "rt", LoRA(rank=r, alpha=a), lr=rate, seed=s)
        if model or task or fields:
            check_fields(fields)
            method = LoRA(rank=filled[0][0], alpha=filled[1][0], targets=targets or "q,v")  # type: ignore[arg-type]
            recipe = Recipe(model or "minilm", task or "rt", method, lr=filled[2][0], **LENGTH | fields)
            runs = Playground(recipe.settings(), "accuracy", (), {})
        if runs or not folder:
            runs, source = runs or playground.load(), folder or self.store.folder
            runs = runs.plus(playground.records(source)) if source.exists() else runs
        elif not (runs := playground.read(folder)):
            raise BadValue(f"{folder} has no validated LoRA runs: say what to train, for example task='rt', steps=200")
        self.playground = runs
        self.axes = dict(zip(("ranks", "alphas", "rates"), axes if self.playground.results else filled, strict=True))
        super().__init__(seeds=seeds, live={"state": "ready"}, picked=list(picked))
        self._show()
        if targets and targets not in (available := self.data["targets"]):
            raise BadValue(f"there are no runs with targets '{targets}' here; available: {', '.join(available)}")
        self._begin_at_best(targets)
        self.view = view or self.view

    def _begin_at_best(self, targets: str | None = None) -> None:
        """Select the best cell, or the middle of a map without results, in the view that shows more cells."""
        data = self.data
        self.targets = targets or max(data["targets"], key=[cell["targets"] for cell in data["cells"]].count)
        middle = [values[len(values) // 2] for values in (data["ranks"], data["alphas"], data["rates"])]
        self.rank, self.alpha, self.lr = self.best[1:] if self.best else middle
        fixed = {"rank": ("alpha", self.alpha), "alpha": ("rank", self.rank)}  # what each view holds fixed
        counts = {view: sum(cell[name] == value for cell in data["cells"]) for view, (name, value) in fixed.items()}
        self.view = max(VIEWS, key=lambda view: (counts[view], len(data[f"{view}s"])))

    @property
    def best(self) -> Cell | None:
        """The cell with the best validation score so far; None before there is a result."""
        index = self.data["best"].get(self.targets)
        return None if index is None else Cell(*(self.data["cells"][index][name] for name in Cell._fields))

    def describe(self) -> str:
        best = self.best
        if best is None:
            return f"The playground: {self.data['about']} Nothing has been trained yet."
        mean, unit = self.data["cells"][self.data["best"][self.targets]]["mean"], self.data["unit"]
        knobs = {"lr": "the rate", "rank": "rank", "alpha": "alpha"}
        moved = [f"{value:.1f} with {knobs[name]}" for name, value in self.data["moves"][self.targets].items()]
        moves = f" Change in {self.data['metric']}, in points: {', '.join(moved)}." if moved and unit else ""
        at = f"rate {best.lr:g}, rank {best.rank}, alpha {best.alpha:g}, {mean:.1f}{unit}"
        return f"The playground: {self.data['about']} Best on validation: {at}.{moves}"

    @T.validate("picked")
    def _check_picked(self, proposal: Any) -> list[list[float]]:
        try:
            return [[int(rank), float(alpha), float(lr)] for rank, alpha, lr in proposal["value"]]
        except (TypeError, ValueError, OverflowError):
            raise BadValue(f"picked must be [[rank, alpha, lr], ...], not {proposal['value']}") from None

    # ---- training

    def _prepare(self) -> LiveSweep:
        if not self.picked:
            raise BadValue("nothing is picked: choose untried cells on the map, or set picked=[[rank, alpha, lr], ...]")
        if not self.seeds:
            raise BadValue("there are no seeds: set seeds, for example panel.seeds = [0, 1, 2]")
        recipes = [self.playground.recipe_of(*run) for picked in self.picked for run in self._untried(picked)]
        if not recipes:
            raise BadValue("every picked cell has been trained: choose untried cells")
        return LiveSweep(recipes, self.store, self.work)

    def _paint(self, work: LiveSweep, busy: bool) -> dict[str, Any]:
        if records := [("", work.ended.popleft().to_json()) for _ in range(len(work.ended))]:
            self.playground = self.playground.plus(records)
            self._show()
            self.picked = [picked for picked in self.picked if self._untried(picked)]
        curves = []
        for recipe in [recipe for recipe in work.pack if busy and recipe.hash in work.left]:
            _, rank, alpha, lr = playground.cell_of(recipe.settings())
            points = playground.curve(list(work.losses.get(recipe.hash, ())), recipe.steps)
            curves.append([rank, alpha, lr, [None if math.isnan(loss) else round(loss, 3) for loss in points]])
        left, steps = work.steps_left(), sum(recipe.steps for recipe in work.recipes.values())
        step = max((len(work.losses.get(recipe.hash, ())) for recipe in work.pack), default=0)
        seconds = work.seconds_for(left, 3 * max(1, len(work.pack)))  # after three steps of each run
        numbers = {"runs": len(work.recipes), "share": round(1 - left / steps, 4), "step": step, "left": seconds}
        return {"curves": curves, **numbers}

    def _show(self) -> None:
        self.data, self.losses = playground.shown(self.playground, **self.axes)

    def _untried(self, picked: Sequence[float]) -> list[tuple[Cell, int]]:
        """Return (cell, seed) for each seed that has no result in a picked cell."""
        rank, alpha, lr = picked
        same = (result.cell.lr for result in self.playground.results if f"{result.cell.lr:.3g}" == f"{lr:.3g}")
        cell = Cell(self.targets, int(rank), alpha, next(same, lr))  # 0.0020000000000000005 is 0.002
        tried = {result.seed for result in self.playground.results if result.cell == cell}
        return [(cell, seed) for seed in self.seeds if seed not in tried]

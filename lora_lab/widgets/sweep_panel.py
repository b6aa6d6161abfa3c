"""The playground: a map of finished runs over rate, rank and alpha, on which untried cells can be trained.

The browser draws (`js/sweep_panel.js`); means, intervals and lines come from `experiments/playground.py`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets as T

from lora_lab.errors import BadValue
from lora_lab.experiments import playground
from lora_lab.experiments.playground import Cell, Playground
from lora_lab.methods.lora import LoRA
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Store, stores
from lora_lab.training.watching import headless
from lora_lab.widgets.background import begin
from lora_lab.widgets.base import LivePanel
from lora_lab.widgets.live_sweep import LiveSweep

VIEWS = ("rank", "alpha")
START = ((1, 8, 64), (16.0,), (5e-4, 1e-3, 2e-3, 4e-3))  # ranks, alphas and rates of a map without any run
LENGTH = {"steps": 200, "batch": 8}


class SweepPanel(LivePanel, file="sweep_panel.js"):
    """A map of runs: learning rate across, rank or alpha down. Untried cells can be trained from it.

        SweepPanel()                  the runs that ship with the lab, and yours of the same kind in `into`
        SweepPanel("runs")            your own store, or a folder of students' stores, with a dot for each run
        SweepPanel("runs", task="opinions.csv", rank=(1, 2), lr=(1e-3, 4e-3), steps=60)      a store to fill

    store     a store of runs, a zip file of one, or a folder with stores below it; None for the runs that ship
    into      the store for runs that are trained here; by default `store` if that is a folder of runs, else "runs"
    model, task, fields   settings that all runs share; if a store has several kinds, those of the largest by default
    rank, alpha, lr       values to offer beside those that were tried
    seed      the seeds to train for each cell
    view      what the rows are: "rank" or "alpha"
    picked    untried cells to train, [[rank, alpha, lr], ...]
    guess     what the reader predicted of the best rate: {view: "alone", "root" or "whole"}
    Raises: NotFound if a folder does not exist, BadValue for a record that cannot be read or an impossible setting.
    """

    data = T.Dict().tag(sync=True)  # see `playground.shown`
    losses = T.Bytes().tag(sync=True)
    # live: the sweep at work: {state, busy, error, runs, share, step, left, curves}
    view = T.Enum(VIEWS, "rank").tag(sync=True)
    targets = T.Unicode().tag(sync=True)
    rank = T.Int().tag(sync=True)
    alpha = T.Float().tag(sync=True)
    lr = T.Float().tag(sync=True)
    picked: T.List = T.List().tag(sync=True)
    seeds = T.List(T.Int()).tag(sync=True)
    guess = T.Dict().tag(sync=True)

    def __init__(
        self, store: str | Path | Store | None = None, *, into: str | Path | Store | None = None,
        model: str | None = None, task: str | None = None, targets: str | None = None, rank: Sequence[int] | int = (),
        alpha: Sequence[float] | float = (), lr: Sequence[float] | float = (), seed: Sequence[int] | int = (0, 1, 2),
        view: str | None = None, picked: Sequence[Sequence[float]] = (), **fields: Any,
    ) -> None:  # fmt: skip
        folder = None if store is None else store.folder if isinstance(store, Store) else Path(store)
        below = stores(folder) if folder and folder.exists() else set()
        own = into or (folder if folder and not folder.is_file() and (not below or folder in below) else "runs")
        self.store = own if isinstance(own, Store) else Store(own)
        self.lock = threading.RLock()
        self.work: LiveSweep | None = None
        axes = [np.atleast_1d(values).tolist() for values in (rank, alpha, lr)]
        plan = None
        if model or task or fields:
            first = [(*values, *start)[0] for values, start in zip(axes, START, strict=True)]
            method = LoRA(rank=first[0], alpha=first[1], targets=tuple((targets or "q,v").split(",")))
            recipe = Recipe(model or "minilm", task or "rt", method, lr=first[2], **LENGTH | fields)
            plan = Playground(recipe.settings(), "accuracy", (), {})
        if folder and not plan:
            found = playground.read(folder)
            if found is None:
                raise BadValue(f"{folder} has no run of LoRA: say what to train there, as in task='rt', steps=200")
        else:
            found, source = plan or playground.load(), folder or self.store.folder
            found = found.plus(playground.records(source)) if source.exists() else found
        self.playground = found
        if not self.playground.results:
            axes = [values or start for values, start in zip(axes, START, strict=True)]
        self.axes = dict(zip(("ranks", "alphas", "rates"), axes, strict=True))
        seeds = np.atleast_1d(seed).tolist()
        super().__init__(seeds=seeds, live={"state": "ready"}, picked=[list(cell) for cell in picked])
        self._show()
        offered = self.data["targets"]
        if targets and targets not in offered:
            raise BadValue(f"no runs with targets '{targets}' here; there are {', '.join(offered)}")
        self._begin_at_best(targets)
        self.view = view or self.view

    def _begin_at_best(self, targets: str | None = None) -> None:
        """Choose the best cell, or the middle of a map without results, in the view that shows more cells."""
        data = self.data
        self.targets = targets or max(data["targets"], key=lambda one: sum(c["targets"] == one for c in data["cells"]))
        middle = [values[len(values) // 2] for values in (data["ranks"], data["alphas"], data["rates"])]
        self.rank, self.alpha, self.lr = self.best[1:] if self.best else middle
        fixed = {"rank": ("alpha", self.alpha), "alpha": ("rank", self.rank)}  # what a view doesn't show
        beside = {view: sum(cell[name] == value for cell in data["cells"]) for view, (name, value) in fixed.items()}
        self.view = max(VIEWS, key=lambda view: (beside[view], len(data[f"{view}s"])))

    @property
    def best(self) -> Cell | None:
        """The cell that validation chooses so far; None before there is a result."""
        at = self.data["best"].get(self.targets)
        return None if at is None else Cell(*(self.data["cells"][at][name] for name in Cell._fields))

    def describe(self) -> str:
        """The panel in plain words."""
        best = self.best
        if best is None:
            return f"The playground: {self.data['about']} Nothing is trained yet."
        mean, unit = self.data["cells"][self.data["best"][self.targets]]["mean"], self.data["unit"]
        knobs = {"lr": "the rate", "rank": "rank", "alpha": "alpha"}
        told = [f"{knobs[name]} by {value:.1f}" for name, value in self.data["moves"][self.targets].items()]
        moves = f" {self.data['metric'].capitalize()} moves with {', '.join(told)} points." if told and unit else ""
        return (
            f"The playground: {self.data['about']} Best on validation: rate {best.lr:g}, rank {best.rank}, "
            f"alpha {best.alpha:g}, {mean:.1f}{unit}.{moves}"
        )

    # ---- training

    def run(self) -> None:
        """Train the picked cells in the background; with LORA_LAB_HEADLESS=1, before returning.

        Raises: BadValue if nothing is picked or left to train; with LORA_LAB_HEADLESS=1, also if the sweep fails.
        """
        if self.work is not None and self.work.alive:
            return
        if not self.picked:
            raise BadValue("nothing is picked: choose untried cells in the map, or set picked=[[rank, alpha, lr], ...]")
        recipes = [self.playground.recipe_of(*one) for picked in self.picked for one in self._untried(picked)]
        if not recipes:
            raise BadValue("all that is picked has been trained: choose cells that are hatched")
        self.work = work = LiveSweep(recipes, self.store, self.work)
        begin(work, lambda: self._paint(work), self._tell)
        if work.error and headless():
            raise BadValue(work.error)

    def stop(self) -> None:
        """Stop training after the current step. Finished runs are kept, and `run` continues with the rest."""
        if self.work is not None and self.work.alive:
            self.work.stop()

    def _do(self, content: dict[str, Any]) -> None:
        """A button of the browser."""
        with self.hold_sync():  # a busy kernel gets traits after the message that needs them
            self.picked, self.targets = content.get("picked", self.picked), content.get("targets", self.targets)
        {"run": self.run, "stop": self.stop}[content["do"]]()

    def _paint(self, work: LiveSweep) -> None:
        """Bring the browser up to date; called several times a second while something trains."""
        with self.lock, self.hold_sync():
            busy = work.alive
            if came := [("", work.ended.popleft().to_json()) for _ in range(len(work.ended))]:
                self.playground = self.playground.plus(came)
                self._show()
                self.picked = [picked for picked in self.picked if self._untried(picked)]
            curves = []
            for recipe in [recipe for recipe in work.pack if busy and recipe.hash in work.left]:
                _, rank, alpha, lr = playground.cell_of(recipe.settings())
                points = playground.curve(list(work.losses.get(recipe.hash, ())), recipe.steps)
                curves.append([rank, alpha, lr, [None if math.isnan(one) else round(one, 3) for one in points]])
            self.live = {
                "state": work.doing, "busy": busy, "error": work.error, "curves": curves, "runs": len(work.recipes),
                "share": round(work.share(), 4), "step": work.step(), "left": work.seconds_left(),
            }  # fmt: skip

    def _show(self) -> None:
        self.data, self.losses = playground.shown(self.playground, **self.axes)

    def _untried(self, picked: Sequence[float]) -> list[tuple[Cell, int]]:
        """The seeds of a picked cell that have no result."""
        rank, alpha, lr = picked
        cell = Cell(self.targets, int(rank), float(alpha), float(lr))
        there = {one.seed for one in self.playground.results if one.cell == cell}
        return [(cell, seed) for seed in self.seeds if seed not in there]

"""The playground: a map of finished runs over rate, rank and alpha, and what is not tried yet can be trained.

The browser draws (`js/sweep_panel.js`); means, intervals and lines come from `experiments/playground.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import traitlets as T

from lora_lab.errors import BadValue
from lora_lab.experiments import playground
from lora_lab.experiments.playground import Cell, Playground
from lora_lab.methods.lora import LoRA
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Store, is_record
from lora_lab.training.watching import headless
from lora_lab.widgets.background import begin
from lora_lab.widgets.base import Panel
from lora_lab.widgets.live_sweep import LiveSweep

VIEWS = ("rank", "alpha")
START = ((1, 8, 64), (16.0,), (5e-4, 1e-3, 2e-3, 4e-3))  # ranks, alphas and rates of a map without any run
LENGTH = {"steps": 200, "batch": 8}


class SweepPanel(Panel, file="sweep_panel.js"):
    """Hundreds of stored runs that answer at once, as a map: rate across, rank or alpha down.

        SweepPanel()                  the runs that ship with the lab, and yours of the same kind in `into`
        SweepPanel("runs")            your own store, or a folder of students' stores: each run a dot
        SweepPanel("runs", task="opinions.csv", rank=(1, 2), lr=(1e-3, 4e-3), steps=60)      a store yet to be filled

    store     a store of runs, or a folder with stores below it; None for the runs that ship
    into      the store that takes what is trained here: `store` where that is one, else "runs"
    model, task, fields   settings that all runs share; where a store has several kinds, those of the largest
    rank, alpha, lr       values to offer beside those that were tried; what has no run is hatched
    seed      the seeds that are trained for each cell
    view      what stands over the rate: "rank" or "alpha"
    picked    untried cells to train, [[rank, alpha, lr], ...]
    guess     what the reader predicted of the best rate: {view: "alone", "root" or "whole"}
    Raises: NotFound for a folder that is not there, BadValue for a record that cannot be read or an impossible setting.
    """

    data = T.Dict().tag(sync=True)  # what `playground.shown` says
    losses = T.Bytes().tag(sync=True)
    live = T.Dict().tag(sync=True)  # of the sweep at work: {state, error, share, step, left, curves}
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
        model: str | None = None, task: str | None = None, targets: str | None = None, rank: Iterable[int] | int = (),
        alpha: Iterable[float] | float = (), lr: Iterable[float] | float = (), seed: Iterable[int] | int = (0, 1, 2),
        view: str | None = None, picked: Sequence[Sequence[float]] = (), **fields: Any,
    ) -> None:  # fmt: skip
        folder = None if store is None else store.folder if isinstance(store, Store) else Path(store)
        below = [file for file in folder.rglob("*.json") if is_record(file)] if folder else []
        of_students = bool(below) and all(file.parent != folder for file in below)
        own = into or ("runs" if of_students else folder) or "runs"
        self.store = own if isinstance(own, Store) else Store(own)
        self.lock = threading.RLock()
        self.work: LiveSweep | None = None
        axes = [_several(values) for values in (rank, alpha, lr)]
        plan = None
        if model or task or fields:
            first = [(*values, *start)[0] for values, start in zip(axes, START, strict=True)]
            method = LoRA(rank=first[0], alpha=first[1], targets=tuple((targets or "q,v").split(",")))
            recipe = Recipe(model or "minilm", task or "rt", method, lr=first[2], **LENGTH | fields)
            plan = Playground(recipe.settings(), "accuracy", (), {})
        self.playground = _found(folder, self.store, plan)
        if not self.playground.results:
            axes = [values or start for values, start in zip(axes, START, strict=True)]
        self.axes = dict(zip(("ranks", "alphas", "rates"), axes, strict=True))
        super().__init__(seeds=list(_several(seed)), live={"state": "ready"}, picked=[list(cell) for cell in picked])
        self._show()
        offered = self.data["targets"]
        if targets and targets not in offered:
            raise BadValue(f"no runs with targets '{targets}' here; there are {', '.join(offered)}")
        self.targets = targets or max(offered, key=lambda one: sum(c["targets"] == one for c in self.data["cells"]))
        middle = [values[len(values) // 2] for values in (self.data["ranks"], self.data["alphas"], self.data["rates"])]
        self.rank, self.alpha, self.lr = self.best[1:] if self.best else middle
        self.view = view or max(VIEWS, key=lambda name: len(self.data[f"{name}s"]))
        self.on_msg(self._heard)

    # ---- what a notebook asks

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
        moves = {"lr": "the rate", "rank": "rank", "alpha": "alpha"}
        told = [f"{moves[name]} by {value:.1f}" for name, value in self.data["moves"][self.targets].items()]
        by = f" {self.data['metric']} moves with {', '.join(told)} points." if told and unit else ""
        return (
            f"The playground: {self.data['about']} Best on validation: rate {best.lr:g}, rank {best.rank}, "
            f"alpha {best.alpha:g}, {mean:.1f}{unit}.{by}"
        )

    # ---- training

    def run(self) -> None:
        """Train what is picked, in the background; with nobody watching (LORA_LAB_HEADLESS=1) here and now.

        Raises: BadValue where nothing is picked, NotFound or BadValue for what cannot be; headless where it fails.
        """
        if self.work is not None and self.work.alive:
            return
        if not self.picked:
            raise BadValue("nothing is picked: choose untried cells in the map, or set picked=[[rank, alpha, lr], ...]")
        there = {(one.cell, one.seed) for one in self.playground.results}
        wanted = [(cell, seed) for cell in map(self._cell, self.picked) for seed in self.seeds]
        wanted = [one for one in wanted if one not in there]
        if not wanted:
            raise BadValue("all that is picked has been trained: choose cells that are hatched")
        recipes = [self.playground.recipe_of(cell, seed) for cell, seed in wanted]
        from lora_lab.experiments.grid import check  # imports transformers, which looking at stored runs does without

        check(recipes)
        self.work = LiveSweep(recipes, self.store, self.work)
        begin(self.work, self._paint, self._tell)
        if self.work.error and headless():
            raise BadValue(self.work.error)

    def stop(self) -> None:
        """End the training after its present step; what has finished is kept, and `run` goes on with the rest."""
        if self.work is not None and self.work.alive:
            self.work.stop()

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        """A button of the browser."""
        does = content.get("do") if isinstance(content, dict) else None
        try:
            if does == "run":
                with self.hold_sync():  # a busy kernel hears of traits after the message that needs them
                    self.picked, self.targets = content.get("picked", self.picked), content.get("targets", self.targets)
                self.run()
            elif does == "stop":
                self.stop()
        except Exception as error:  # in a message's handler nobody would see it
            self._tell(str(error))

    def _tell(self, trouble: str) -> None:
        self.live = {**self.live, "error": trouble, "told": time.monotonic()}  # the same one twice is news, too

    def _paint(self) -> None:
        """Bring the browser up to date; called several times a second while something trains."""
        with self.lock:
            work = self.work
            if work is None:
                return
            busy, came = work.alive, []
            while work.ended:
                came.append(("", work.ended.popleft().to_json()))
            with self.hold_sync():
                if came:
                    self.playground = self.playground.plus(came)
                    self._show()
                    done = {(one.cell, one.seed) for one in self.playground.results}
                    self.picked = [
                        picked
                        for picked in self.picked
                        if any((self._cell(picked), seed) not in done for seed in self.seeds)
                    ]
                self.live = self._standing(work, busy)

    def _standing(self, work: LiveSweep, busy: bool) -> dict[str, Any]:
        left, width = work.seconds_left(), self.playground.every
        pack = [recipe for recipe in work.pack if recipe.hash in work.left]
        curves = []
        for recipe in pack if busy else ():
            cell = playground.cell_of(recipe.settings())
            points = playground.thinned(list(work.losses.get(recipe.hash, ())), width)
            curves.append(
                [cell.rank, cell.alpha, cell.lr, [round(point, 3) if point == point else None for point in points]]
            )
        return {
            "state": work.doing, "busy": busy, "error": work.error, "curves": curves, "runs": len(work.recipes),
            "share": round(work.share(), 4), "step": work.step(), "left": None if left is None else round(left),
        }  # fmt: skip

    def _show(self) -> None:
        self.data, self.losses = playground.shown(self.playground, **self.axes)

    def _cell(self, picked: Sequence[float]) -> Cell:
        rank, alpha, lr = picked
        return Cell(self.targets, int(rank), float(alpha), float(lr))


def _found(folder: Path | None, own: Store, plan: Playground | None) -> Playground:
    """The runs to begin with: those of a plan's kind, of a folder, or those that ship and one's own of their kind."""
    if folder is not None and plan is None:
        found = playground.read(folder)
        if found is None:
            raise BadValue(f"{folder} has no finished run of LoRA: say what to train there, as in task='rt', steps=200")
        return found
    source = folder or own.folder
    start = plan or playground.load()
    return start.plus(playground.records(source)) if source.is_dir() else start


def _several(values: Any) -> tuple[Any, ...]:
    """A single value may stand for several."""
    return (values,) if isinstance(values, int | float) else tuple(values)

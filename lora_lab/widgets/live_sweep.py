"""A sweep in a thread: started, watched, stopped, resumed; and what its runs allow to be said.

No widgets here, so that it is tested without any. The store is read once; after that results come from the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lora_lab.experiments.choice import CELL, Cell, conclusion, eligible, is_cell, ranked
from lora_lab.experiments.results import load, row
from lora_lab.experiments.sweep import Swept, sweep
from lora_lab.plots import Curve, curve
from lora_lab.training.lane import Callback, Progress
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run, Store
from lora_lab.widgets.background import Background


class Facts(NamedTuple):
    """What is known of a run: the metric on the last validation and on the test rows."""

    status: str = "to come"
    validation: float | None = None
    test: float | None = None
    error: str | None = None
    dtype: str | None = None


def facts_in(store: Store, metric: str) -> dict[str, Facts]:
    """Every run of a store by its hash. Raises: BadValue for a record that cannot be read."""
    frame = load(store.folder)
    names = ("status", f"validation_{metric}", metric, "error", "run_dtype")
    columns = [frame[name] if name in frame else [None] * len(frame) for name in names]
    return {name: Facts(*values) for name, *values in zip(frame["hash"], *columns, strict=True)}


class LiveSweep(Background):
    """The runs of a grid and what is known of each. Read from any thread; written by the sweeping one.

    What has finished is kept at a Stop, and another Start goes on where it was.

    known   what a store has, see `facts_in`: shared by the sweeps of a panel, and filled as results come
    """

    def __init__(self, recipes: Sequence[Recipe], store: Store, metric: str, known: dict[str, Facts]) -> None:
        super().__init__()
        self.recipes = {recipe.hash: recipe for recipe in recipes}
        self.store, self.metric, self.known = store, metric, known
        self.finding = ""
        self.version = 0  # counts the results, so that who draws them knows when to
        self.pack: list[Recipe] = []
        self.packs, self.packs_begun, self.steps_taken = 0, 0, 0
        self.progress: dict[str, list[Progress]] = {}
        self.swept: Swept | None = None
        self._curves: dict[str, Curve] = {}
        self._lines = pd.DataFrame([_line(name, recipe) for name, recipe in self.recipes.items()])
        self._frame: tuple[int, pd.DataFrame, Cell | None] | None = None
        self._began = 0.0

    # ---- what is done with it

    def conclude(self) -> None:
        """Bring `finding` up to date: reads the predictions of two cells, so it is for when the sweep rests."""
        self.finding = conclusion(self.frame(), self.store, self.metric)

    # ---- what is known

    def frame(self) -> pd.DataFrame:
        """A line for each run of the grid, also of those to come; made anew only when a result has come."""
        return self._known_now()[1]

    def best(self) -> Cell | None:
        """The cell that validation chooses so far; None before there is a result."""
        return self._known_now()[2]

    def _known_now(self) -> tuple[int, pd.DataFrame, Cell | None]:
        if self._frame is None or self._frame[0] != self.version:
            version, facts = self.version, [self.known.get(name, Facts()) for name in self.recipes]
            validation, test = np.array([f[1:3] for f in facts], float).T
            metrics = {f"validation_{self.metric}": validation, self.metric: test}
            words = {"status": [f.status for f in facts], "error": [f.error for f in facts]}
            words |= {"run_dtype": [f.dtype for f in facts]}
            frame = self._lines.assign(**words, **metrics)  # type: ignore[arg-type]
            self._frame = version, frame, next(iter(eligible(ranked(frame, self.metric))), None)
        return self._frame

    def counts(self) -> dict[str, int]:
        """How many runs are done, failed, and left."""
        status = self.frame()["status"]
        done, failed = int(status.isin(FINISHED).sum()), int((status == "failed").sum())
        return {"done": done, "left": len(status) - done - failed, "failed": failed}

    def curves(self, cell: Cell) -> list[Curve]:
        """The curves of a cell, a seed each: those of runs at work as far as they are."""
        frame = self.frame()
        names = frame.loc[is_cell(frame, cell), "hash"]
        return [found for name in names if (found := self._curve(name)) is not None]

    def lanes(self) -> list[Recipe]:
        """The runs of the present pack that still train."""
        return [recipe for recipe in self.pack if not self._has(recipe.hash)]

    def at_work(self) -> Cell | None:
        """The cell of the first run that trains."""
        return next((_cell(recipe) for recipe in self.lanes()), None)

    def failure(self) -> str:
        """The reason of the first run that failed, "" where none has."""
        errors = self.frame()["error"].dropna()
        return str(errors.iloc[0]) if len(errors) else ""

    def step(self) -> int:
        """The step that the present pack is at."""
        return max((seen[-1].step for seen in list(self.progress.values())), default=0)

    def seconds_left(self) -> float | None:
        """Time to go at the pace so far, in seconds; None before there is a pace."""
        if self.steps_taken < 3 * max(1, len(self.pack)):
            return None
        at = {name: seen[-1].step for name, seen in list(self.progress.items())}
        left = sum(r.steps - at.get(name, 0) for name, r in self.recipes.items() if not self._has(name))
        return (time.monotonic() - self._began) / self.steps_taken * left

    # ---- in the sweeping thread

    def _work(self) -> None:
        """The whole sweep; runs that the store has are not run again."""
        self.pack, self.packs_begun, self.steps_taken, self._began = [], 0, 0, 0.0  # a new pace, the curves stay
        recipes = list(self.recipes.values())
        self.swept = sweep(recipes, self.store, stop=self._stop, note=self._note, callbacks=self._callbacks)
        for run in self.swept.runs:  # also those that somebody else had put into the store
            self._take(run)
        self.conclude()
        self.state = "stopped" if self.counts()["left"] else "done"

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        if event == "plan":
            self.packs = len(facts["packs"])
        elif event == "pack":
            self.pack, earlier = facts["recipes"], self.progress
            self.progress = {r.hash: earlier[r.hash] for r in self.pack if r.hash in earlier}
            self.packs_begun, self.state = self.packs_begun + 1, "loading"
        elif event == "run":
            self._take(facts["run"])
            self.progress.pop(facts["run"].recipe.hash, None)

    def _callbacks(self, recipe: Recipe) -> list[Callback]:
        def see(progress: Progress) -> None:
            self._began = self._began or time.monotonic()
            seen = self.progress.setdefault(recipe.hash, [])
            while seen and seen[-1].step >= progress.step:  # after a Stop it goes on from its last validation
                seen.pop()
            seen.append(progress)
            self.steps_taken += 1
            self.state = "training" if progress.step < progress.steps else "scoring"

        return [see]

    def _take(self, run: Run) -> None:
        found = row(run.to_json())
        validation, test = found.get(f"validation_{self.metric}"), found.get(self.metric)
        self.known[run.recipe.hash] = Facts(run.status, validation, test, run.error, run.dtype)
        self.version += 1

    def _has(self, name: str) -> bool:
        return self.known.get(name, Facts()).status in (*FINISHED, "failed")

    def _curve(self, name: str) -> Curve | None:
        recipe = self.recipes[name]
        if self._has(name):
            if name not in self._curves:
                self._curves[name] = curve(f"seed {recipe.seed}", self.store.read(name).history, self.metric)
            return self._curves[name]
        seen = list(self.progress.get(name, ()))
        points = [(p.step, p.validation[self.metric]) for p in seen if p.validation]
        return Curve(f"seed {recipe.seed}", [p.step for p in seen], [p.loss for p in seen], points) if seen else None


def _line(name: str, recipe: Recipe) -> dict[str, Any]:
    """A run of the grid as the frame has it before there are results."""
    cell = dict(zip(CELL, _cell(recipe), strict=True))
    return {"hash": name, "method": recipe.method.name, **cell, "seed": recipe.seed}


def _cell(recipe: Recipe) -> Cell:
    method = recipe.method.settings()
    return ",".join(method["targets"]), method["rank"], method["alpha"], recipe.lr

"""A run in a thread: started, watched, stopped. No widgets here, so that it is tested without any."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lora_lab.errors import LabError
from lora_lab.plots import Curve
from lora_lab.training.lane import Lane, Progress
from lora_lab.training.mind import Mind, changed_mind
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store
from lora_lab.training.train import Bench, keep, keep_failure
from lora_lab.training.turns import turn
from lora_lab.widgets.background import Background


@dataclass
class LiveRun(Background):
    """One training run and what is known of it so far. Read from any thread; written by the training thread.

    A stopped run is scored and kept as "stopped"; one that was stopped while another trained has no `run`.
    state   "ready", "starting", "loading", "training", "scoring", then "done", "stopped" or "failed"
    """

    recipe: Recipe
    store: Store
    metric: str = "accuracy"
    guess: float | None = None
    progress: list[Progress] = field(default_factory=list)
    run: Run | None = None
    mind: Mind | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self._started = 0.0
        self._lane: Lane | None = None

    def curve(self) -> Curve:
        """The curve so far."""
        seen = list(self.progress)
        before = self._lane.history.before if self._lane else {}
        points = [(0, before[self.metric])] if before else []
        points += [(p.step, p.validation[self.metric]) for p in seen if p.validation]
        return Curve(self.recipe.describe(), [p.step for p in seen], [p.loss for p in seen], points)

    def seconds_left(self) -> float | None:
        """Time to go at the pace so far, in seconds; None before there is a pace."""
        done = len(self.progress)
        if done < 3:
            return None
        return (time.monotonic() - self._started) / done * (self.recipe.steps - done)

    def _work(self) -> None:
        with turn(self._stop) as mine:
            if mine:
                self._train()
            else:
                self.state = "stopped"

    def _train(self) -> None:
        self.state = "loading"
        bench = Bench(self.recipe, callbacks=[self.progress.append])
        self._lane = bench.lane
        bench.before_scoring = lambda: self._enter("scoring")  # type: ignore[method-assign]
        self.store.check_writable()
        self.state, self._started = "training", time.monotonic()
        try:
            run = bench.only(self._stop)
        except LabError as error:
            keep_failure(self.store, bench, error)
            raise
        self.run = keep(self.store, bench, run)
        self.mind = changed_mind(bench)
        self.state = "stopped" if run.status == "stopped" else "done"

    def _enter(self, state: str) -> None:
        self.state = state

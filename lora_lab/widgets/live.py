"""A run in a thread: started, watched, stopped. No widgets here, so that it is tested without any."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from lora_lab.errors import LabError
from lora_lab.plots import Curve
from lora_lab.training.lane import Progress
from lora_lab.training.mind import Mind, changed_mind
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store
from lora_lab.training.train import Bench, keep, keep_failure

State = Literal["ready", "loading", "training", "scoring", "done", "stopped", "failed"]


@dataclass
class LiveRun:
    """One training run and what is known of it so far. Read from any thread; written by the training thread."""

    recipe: Recipe
    store: Store
    metric: str = "accuracy"
    guess: float | None = None
    state: State = "ready"
    progress: list[Progress] = field(default_factory=list)
    error: str = ""
    run: Run | None = None
    mind: Mind | None = None

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = 0.0

    def start(self) -> None:
        """Train in the background and return at once."""
        self._thread = threading.Thread(target=self.work, name="lora-lab-train", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the run to end after its present step; it is then scored and kept as "stopped"."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        """Whether the training thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the thread to end."""
        if self._thread:
            self._thread.join(seconds)

    def work(self) -> None:
        """The whole run, in this thread. An error becomes `state` "failed" and one sentence in `error`."""
        try:
            self._work()
        except LabError as error:
            self.error, self.state = str(error), "failed"
        except Exception as error:  # a thread's exception would vanish unseen
            self.error, self.state = f"{type(error).__name__}: {error}", "failed"

    def curve(self) -> Curve:
        """The curve so far."""
        seen = list(self.progress)
        points = [(p.step, p.validation[self.metric]) for p in seen if p.validation]
        return Curve(self.recipe.describe(), [p.step for p in seen], [p.loss for p in seen], points)

    def seconds_left(self) -> float | None:
        """Time to go at the pace so far, in seconds; None before there is a pace."""
        done = len(self.progress)
        if done < 3:
            return None
        return (time.monotonic() - self._started) / done * (self.recipe.steps - done)

    def _work(self) -> None:
        self.state = "loading"
        bench = Bench(self.recipe, callbacks=[self.progress.append])
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

    def _enter(self, state: State) -> None:
        self.state = state

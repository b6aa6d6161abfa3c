"""A sweep in a thread: started, watched, stopped, resumed. No widgets here, so that it is tested without any."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import FINISHED, Run, Store
from lora_lab.widgets.background import Background


class LiveSweep(Background):
    """These runs, those that the store lacks trained side by side. Read from any thread; written by the sweeping one.

    ended    runs as they come, for whoever shows them to take
    losses   of each run at work, by the recipe's hash: one of every step so far, NaN of those before a restart
    earlier  a sweep that was stopped, whose curves go on
    """

    def __init__(self, recipes: Sequence[Recipe], store: Store, earlier: LiveSweep | None = None) -> None:
        super().__init__()
        self.recipes = {recipe.hash: recipe for recipe in recipes}
        self.store = store
        self.ended: deque[Run] = deque()
        self.losses: dict[str, list[float]] = earlier.losses if earlier else {}
        self.pack: list[Recipe] = []
        self.left = set(self.recipes)
        self._taken, self._began = 0, 0.0

    def step(self) -> int:
        """The step that the present pack is at."""
        return max((len(self.losses.get(recipe.hash, ())) for recipe in self.pack), default=0)

    def share(self) -> float:
        """How much of the work is done, 0 to 1."""
        return 1 - self._steps_left() / max(1, sum(recipe.steps for recipe in self.recipes.values()))

    def seconds_left(self) -> float | None:
        """Time to go at the pace so far, in seconds; None before there is a pace."""
        if self._taken < 3 * max(1, len(self.pack)):
            return None
        return (time.monotonic() - self._began) / self._taken * self._steps_left()

    def _steps_left(self) -> int:
        return sum(self.recipes[name].steps - len(self.losses.get(name, ())) for name in list(self.left))

    # ---- in the sweeping thread

    def _work(self) -> None:
        from lora_lab.experiments.sweep import sweep  # imports torch, which looking at stored runs does without
        from lora_lab.widgets.live_pack import LivePack

        self.pack, self._taken, self._began = [], 0, 0.0  # a new pace; the curves stay
        recipes = list(self.recipes.values())
        how: dict[str, Any] = {"stop": self._stop, "note": self._note, "callbacks": self._callbacks, "pack": LivePack}
        swept = sweep(recipes, self.store, **how)
        for run in swept.runs:  # also those that the store had
            self._take(run)
        self.state = "stopped" if self.left else "done"

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        if event == "pack":
            self.pack, self.state = facts["recipes"], "loading"
        elif event == "run":
            self._take(facts["run"])

    def _callbacks(self, recipe: Recipe) -> list[Any]:
        own = self.losses.setdefault(recipe.hash, [])

        def see(progress: Any) -> None:
            self._began = self._began or time.monotonic()
            del own[progress.step - 1 :]  # after a Stop it goes on from its last validation
            own.extend([math.nan] * (progress.step - 1 - len(own)))
            own.append(progress.loss)
            self._taken += 1
            self.state = "training" if progress.step < progress.steps else "scoring"

        return [see]

    def _take(self, run: Run) -> None:
        if run.recipe.hash in self.left and run.status in (*FINISHED, "failed"):
            self.left.discard(run.recipe.hash)
            self.ended.append(run)

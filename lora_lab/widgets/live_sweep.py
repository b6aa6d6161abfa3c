"""A sweep in a thread: start, watch, stop and resume it. It uses no widgets, so it can be tested without them."""

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
    """A sweep of recipes into a store. Its attributes may be read from any thread.

    left     hashes of the recipes that have not finished or failed yet
    ended    queue of finished and failed runs, which the panel consumes
    pack     the recipes that are training now
    losses   {hash: training loss of every step so far}; NaN for steps before a restart
    earlier  a stopped sweep whose curves this one continues
    """

    def __init__(self, recipes: Sequence[Recipe], store: Store, earlier: LiveSweep | None = None) -> None:
        super().__init__()
        self.recipes = {recipe.hash: recipe for recipe in recipes}
        self.store, self.left, self.pack = store, set(self.recipes), list[Recipe]()
        self.ended: deque[Run] = deque()
        self.losses: dict[str, list[float]] = earlier.losses if earlier else {}

    def step(self) -> int:
        """Return the pack's current step."""
        return max((len(self.losses.get(recipe.hash, ())) for recipe in self.pack), default=0)

    def share(self) -> float:
        """Return the share of the work that is done, from 0 to 1."""
        return 1 - self._steps_left() / sum(recipe.steps for recipe in self.recipes.values())

    def seconds_left(self) -> int | None:
        """Estimate the seconds left; None during the first three steps."""
        return self.seconds_for(self._steps_left(), 3 * max(1, len(self.pack)))

    def _steps_left(self) -> int:
        return sum(self.recipes[name].steps - len(self.losses.get(name, ())) for name in list(self.left))

    # ---- in the sweeping thread

    def _work(self) -> None:
        from lora_lab.experiments.sweep import Sweep  # imports torch, which showing stored runs does not need
        from lora_lab.widgets.live_pack import LivePack

        swept = Sweep(self.store, stop=self._stop, note=self._note, pack=LivePack).run(self.recipes.values())
        for run in swept.runs:  # including those already in the store
            self._note("run", {"run": run})
        self.state = "stopped" if self.left else "done"

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        if event == "pack":
            self.pack, self.state = facts["recipes"], "loading"
        elif event == "step":
            self._on_step(facts["recipe"], facts["progress"])
        elif event == "run" and facts["run"].status in (*FINISHED, "failed") and facts["run"].recipe.hash in self.left:
            self.left.discard(facts["run"].recipe.hash)
            self.ended.append(facts["run"])

    def _on_step(self, recipe: Recipe, progress: Any) -> None:
        losses = self.losses.setdefault(recipe.hash, [])
        self.stamps.append(time.monotonic())
        del losses[progress.step - 1 :]  # a stopped run resumes from its last validation
        losses.extend([math.nan] * (progress.step - 1 - len(losses)))
        losses.append(progress.loss)
        self.state = "training" if progress.step < progress.steps else "scoring"

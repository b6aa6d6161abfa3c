"""A sweep in a thread: started, watched, stopped, resumed. It needs no widgets, so it is tested without any."""

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
    """A sweep of some recipes into a store. Its attributes may be read from any thread.

    left     hashes of the recipes that have not finished or failed yet
    ended    runs that have, for the panel to take
    pack     the recipes that train now
    losses   {hash: training loss of every step so far}; NaN for steps before a restart
    earlier  a stopped sweep, whose curves go on
    """

    def __init__(self, recipes: Sequence[Recipe], store: Store, earlier: LiveSweep | None = None) -> None:
        super().__init__()
        self.recipes = {recipe.hash: recipe for recipe in recipes}
        self.store, self.left, self.pack = store, set(self.recipes), list[Recipe]()
        self.ended: deque[Run] = deque()
        self.losses: dict[str, list[float]] = earlier.losses if earlier else {}
        self._taken, self._began = 0, 0.0

    def step(self) -> int:
        """The pack's current step."""
        return max((len(self.losses.get(recipe.hash, ())) for recipe in self.pack), default=0)

    def share(self) -> float:
        """How much of the work is done, from 0 to 1."""
        return 1 - self._steps_left() / sum(recipe.steps for recipe in self.recipes.values())

    def seconds_left(self) -> int | None:
        """Seconds left at the pace so far; None in the first three steps."""
        if self._taken < 3 * max(1, len(self.pack)):
            return None
        return round((time.monotonic() - self._began) / self._taken * self._steps_left())

    def _steps_left(self) -> int:
        return sum(self.recipes[name].steps - len(self.losses.get(name, ())) for name in list(self.left))

    # ---- in the sweeping thread

    def _work(self) -> None:
        from lora_lab.experiments.sweep import Sweep  # imports torch, which stored runs do not need
        from lora_lab.widgets.live_pack import LivePack

        swept = Sweep(self.store, stop=self._stop, note=self._note, pack=LivePack).run(self.recipes.values())
        for run in swept.runs:  # including those that were in the store
            self._note("run", {"run": run})
        self.state = "stopped" if self.left else "done"

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        if event == "pack":
            self.pack, self.state = facts["recipes"], "loading"
        elif event == "step":
            self._see(facts["recipe"], facts["progress"])
        elif event == "run" and facts["run"].status in (*FINISHED, "failed") and facts["run"].recipe.hash in self.left:
            self.left.discard(facts["run"].recipe.hash)
            self.ended.append(facts["run"])

    def _see(self, recipe: Recipe, progress: Any) -> None:
        own = self.losses.setdefault(recipe.hash, [])
        self._began = self._began or time.monotonic()
        del own[progress.step - 1 :]  # a stopped run goes on from its last validation
        own.extend([math.nan] * (progress.step - 1 - len(own)))
        own.append(progress.loss)
        self._taken += 1
        self.state = "training" if progress.step < progress.steps else "scoring"

"""Progress bars with the time remaining."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from lora_lab.training.loop import Callback, Progress
from lora_lab.training.recipe import Recipe
from lora_lab.training.watching import watched


def _bar(steps: int) -> Any:
    return tqdm(total=steps, unit="step", file=sys.stderr, disable=not watched(), dynamic_ncols=True)


@contextmanager
def progress_bar(steps: int) -> Iterator[Callback]:
    """Yield a callback that draws a bar on stderr if someone is watching."""
    with _bar(steps) as bar:

        def show(progress: Progress) -> None:
            if progress.validation:
                metrics = {name: f"{value:.3g}" for name, value in progress.validation.items() if name != "macro_f1"}
                bar.set_postfix(metrics, refresh=False)
            bar.update()

        yield show


class SweepBar:
    """A bar over the steps of all runs."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self._seen: dict[str, int] = {}

    def left(self, recipes: Sequence[Recipe]) -> None:
        """Add the steps of runs that have not been trained yet."""
        self.bar.total = (self.bar.total or 0) + sum(recipe.steps for recipe in recipes)
        self.bar.refresh()

    def ended(self, recipe: Recipe) -> None:
        """Count a run as complete, even if it ended early."""
        self._reach(recipe, recipe.steps)

    def callback(self, recipe: Recipe) -> Callback:
        """Return a callback that advances the bar with a run's steps."""
        return lambda progress: self._reach(recipe, progress.step)

    def _reach(self, recipe: Recipe, step: int) -> None:
        self.bar.update(step - self._seen.get(recipe.hash, 0))
        self._seen[recipe.hash] = step


@contextmanager
def sweep_bar() -> Iterator[SweepBar]:
    """Yield a bar for a sweep."""
    with _bar(0) as bar:
        yield SweepBar(bar)

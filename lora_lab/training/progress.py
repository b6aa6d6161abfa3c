"""A bar with the time to go, measured on this machine as it trains."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm.auto import tqdm

from lora_lab.training.loop import Callback, Progress
from lora_lab.training.recipe import Recipe
from lora_lab.training.watching import watched


@contextmanager
def progress_bar(steps: int) -> Iterator[Callback]:
    """A callback that draws the bar on stderr, where someone watches; it is closed however the run ends."""
    with tqdm(total=steps, unit="step", file=sys.stderr, disable=not watched(), dynamic_ncols=True) as bar:

        def show(progress: Progress) -> None:
            if progress.validation:
                shown = {name: f"{value:.3g}" for name, value in progress.validation.items() if name != "macro_f1"}
                bar.set_postfix(shown, refresh=False)
            bar.update()

        yield show


class SweepBar:
    """A bar over all steps of all runs; `left` says which they are, once it is known which are done already."""

    def __init__(self) -> None:
        self.bar = tqdm(total=0, unit="step", file=sys.stderr, disable=not watched(), dynamic_ncols=True)
        self._seen: dict[str, int] = {}

    def left(self, recipes: Sequence[Recipe]) -> None:
        """These are to be made, beside those that were."""
        self.bar.total = (self.bar.total or 0) + sum(recipe.steps for recipe in recipes)
        self.bar.refresh()

    def ended(self, recipe: Recipe) -> None:
        """This one is done: one that ended early leaves steps that nobody will take."""
        self._reach(recipe, recipe.steps)

    def callback(self, recipe: Recipe) -> Callback:
        """What is to be called with each step of it."""
        return lambda progress: self._reach(recipe, progress.step)

    def _reach(self, recipe: Recipe, step: int) -> None:
        self.bar.update(step - self._seen.get(recipe.hash, 0))
        self._seen[recipe.hash] = step


@contextmanager
def sweep_bar() -> Iterator[SweepBar]:
    """The bar of a sweep, closed however the sweep ends."""
    shown = SweepBar()
    try:
        yield shown
    finally:
        shown.bar.close()

"""Progress bars with the time remaining."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

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
    """A progress bar for the steps of all runs; use it in a `with` block."""

    def __init__(self) -> None:
        self.bar, self._seen = _bar(0), dict[str, int]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def left(self, recipes: Sequence[Recipe]) -> None:
        """Add the steps of runs that have not been trained yet."""
        self.bar.total = (self.bar.total or 0) + sum(recipe.steps for recipe in recipes)
        self.bar.refresh()

    def reach(self, recipe: Recipe, step: int) -> None:
        """Advance the bar to a run's step; when a run ends, even early, `step` is its number of steps."""
        self.bar.update(step - self._seen.get(recipe.hash, 0))
        self._seen[recipe.hash] = step

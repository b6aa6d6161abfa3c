"""A bar with the time to go, measured on this machine as it trains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

from lora_lab.training.lane import Callback, Progress
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

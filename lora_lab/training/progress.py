"""Progress bars with the remaining time, on stderr, shown only in terminals and notebooks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm

from lora_lab.training.member import Callback, Progress
from lora_lab.training.watching import watched


def steps_bar(steps: int = 0) -> Any:
    return tqdm(total=steps, unit="step", file=sys.stderr, disable=not watched(), dynamic_ncols=True)


@contextmanager
def progress_bar(steps: int) -> Iterator[Callback]:
    with steps_bar(steps) as bar:

        def show(progress: Progress) -> None:
            if progress.validation:
                metrics = {name: f"{value:.3g}" for name, value in progress.validation.items() if name != "macro_f1"}
                bar.set_postfix(metrics, refresh=False)
            bar.update()

        yield show

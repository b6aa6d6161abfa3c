"""Hooks for other packages: new kinds of tasks, and scores of generated text.

A package registers its hooks on import and declares an entry point in its pyproject.toml:

    [project.entry-points."lora_lab.plugins"]
    NAME = "its_package"

The lab imports the package once, when a task is unknown or generated text is scored for the first time. Commands need
no hook, because a package can add them to `lora_lab.cli.commands`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Scores:
    """Scores of generated texts.

    metrics   The scores over all texts.
    details   Other values to store for all texts.
    each      The values to store for each text.
    """

    metrics: Mapping[str, float]
    details: Mapping[str, Any]
    each: Sequence[Mapping[str, Any]]


read_task: list[Callable[..., Any]] = []
"""`read(name, max_length=None)` returns a `Task`, or None for a name that it doesn't know."""
score_answers: list[Callable[[Any, Sequence[str], Sequence[str]], Scores]] = []
"""`score(task, prompts, texts)` scores a model's answers to these prompts of a `Task`."""


@cache
def load() -> None:
    """Import the registered packages, once."""
    from importlib.metadata import entry_points  # this import takes 0.1 s

    for entry in entry_points(group="lora_lab.plugins"):
        entry.load()


def task(name: str, **options: Any) -> Any:
    """Return a named task from the first registered reader that knows it, or None."""
    load()
    return next((task for read in read_task if (task := read(name, **options)) is not None), None)


def scores(task: Any, prompts: Sequence[str], texts: Sequence[str]) -> list[Scores]:
    """Score a model's answers with every registered scorer."""
    load()
    return [score(task, prompts, texts) for score in score_answers]

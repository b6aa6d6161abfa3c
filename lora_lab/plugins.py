"""Hooks for other packages: kinds of tasks, scores of generated text, notes beside a task's metrics.

A package that registers something when it is imported names itself in its pyproject.toml:

    [project.entry-points."lora_lab.plugins"]
    NAME = "its_package"

It is imported once, when the lab is asked for a task that it does not know or scores generated text. Commands need no
hook: a package adds its own to `lora_lab.cli.commands`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

GROUP = "lora_lab.plugins"


@dataclass(frozen=True)
class Scores:
    """How good generated texts are.

    metrics   of all of them together
    details   what else is to be kept of all of them
    each      what is to be kept of each text
    """

    metrics: Mapping[str, float]
    details: Mapping[str, Any]
    each: Sequence[Mapping[str, Any]]


read_task: list[Callable[..., Any]] = []
"""`read(name, max_length=None, download=False)` -> a `Task`, or None where the name is of another kind."""
score_answers: list[Callable[[Any, Sequence[str], Sequence[str]], Scores]] = []
"""`score(task, prompts, texts)`: how good the texts are that a model answered to these prompts of a `Task`."""
note_beside: list[Callable[[str, Mapping[str, float]], str]] = []
"""`note(task, metrics)` -> what the command line prints below a task's metrics, "" for nothing."""


@cache
def load() -> None:
    """Import the packages that register themselves, once."""
    from importlib.metadata import entry_points  # 0.1 s, for a name that the lab does not know

    for entry in entry_points(group=GROUP):
        entry.load()


def task(name: str, **options: Any) -> Any:
    """The task that one of the registered readers makes of a name; None where it is no reader's."""
    load()
    return next((made for read in read_task if (made := read(name, **options)) is not None), None)


def scores(task: Any, prompts: Sequence[str], texts: Sequence[str]) -> list[Scores]:
    """What the registered scorers say of the texts that a model answered to these prompts."""
    load()
    return [score(task, prompts, texts) for score in score_answers]


def notes(task: str, metrics: Mapping[str, float]) -> list[str]:
    """What is to be printed below a task's metrics."""
    load()
    return [words for note in note_beside if (words := note(task, metrics))]

"""What the class panel says of everyone's guesses, and of its picture, for those who read or listen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lora_lab.experiments.choice import Cell, label, said
from lora_lab.metrics import factor
from lora_lab.widgets.panel import escape
from lora_lab.widgets.shown import Table

Guesses = Sequence[tuple[str, float]]


def guessed(guesses: Guesses, measured: float | None, metric: str) -> str:
    """The guesses in words: how many, and whose is the nearest."""
    if not guesses or measured is None:
        return f"{counted(guesses)}."
    name, guess = min(guesses, key=lambda one: abs(scaled(one[1], metric) - scaled(measured, metric)))
    near = f"{escape(name)}'s {_written(guess, metric)}"
    return f"{counted(guesses)}; the nearest to {said(measured, metric)} on test is {near}."


def counted(guesses: Sequence[Any]) -> str:
    """1 guess, 2 guesses."""
    return f"{len(guesses)} guess{'es' * (len(guesses) != 1)}"


def guesses_table(guesses: Guesses, measured: float | None, metric: str) -> Table:
    """Everyone's guess, the highest first, and how far off it is."""
    rows = sorted(guesses, key=lambda one: -scaled(one[1], metric))
    caption = "guesses" if measured is None else f"guesses; measured on test: {said(measured, metric)}"
    return Table(
        caption, ("name", "guess", "off by"), [(n, _written(g, metric), _off(g, measured, metric)) for n, g in rows]
    )


def picture_words(view: str, metric: str, best: Cell) -> str:
    """The three parts of the picture in a sentence; the table below it has every cell and seed."""
    return (
        f"Validation {metric} of the class's runs, {view}: best on validation at {label(best)}. Beside it the spread "
        "over seeds of the best cells, and everyone's guess with the measured value."
    )


def scaled(value: float, metric: str) -> float:
    """As it is drawn: an accuracy in per cent, whether it was given so or as a share."""
    return factor(metric) * value if value <= 1 else value


def _written(guess: float, metric: str) -> str:
    return f"{scaled(guess, metric):g}{'%' if metric == 'accuracy' else ''}"


def _off(guess: float, measured: float | None, metric: str) -> str:
    return "-" if measured is None else f"{scaled(guess, metric) - scaled(measured, metric):+.1f}"

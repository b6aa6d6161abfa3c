"""What the lessons share: their length, a place for guesses, and runs to catch up with."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from lora_lab.errors import NotFound

if TYPE_CHECKING:
    from lora_lab.training.runs import Run

FAST = os.environ.get("FAST", "") not in ("", "0")


def steps(full: int, fast: int = 40) -> int:
    """How many steps a lesson trains: `full`, or with FAST=1 only enough for an illustration."""
    return min(full, fast) if FAST else full


def compare(what: str, guess: float | None, found: float, unit: str = "") -> str:
    """A guess beside what was counted or measured, in words."""
    unit = f" {unit}" if unit and unit != "%" else unit
    if guess is None:
        return f"{what}: {_in_full(found)}{unit}. You made no guess."
    off = guess - found
    apart = "" if unit == " times" else unit  # "246 times too low" would read as a factor
    side = "exactly right" if off == 0 else f"{_in_full(abs(off), 3)}{apart} too {'high' if off > 0 else 'low'}"
    return f"{what}: you said {_in_full(guess)}{unit}, it is {_in_full(found)}{unit}: {side}."


def _in_full(value: float, digits: int = 4) -> str:
    """Up to ten million every digit before the point, with separators; else `digits` of them."""
    return f"{value:,.0f}" if 1000 <= abs(value) <= 1e7 else f"{value:,.{digits}g}"


def eta(training_steps: int, layers: int = 6) -> str:
    """About how long a run of minilm on rt takes on this machine, from the speed that was measured on it."""
    from lora_lab.training import device

    choice = device.choose(tokens=device.LENGTHS[0])
    times = device.measured(choice.device)
    speed = device.key(choice.dtype, choice.attention, device.LENGTHS[0])
    a_step = layers * times.get(speed, max(times.values()))  # a dtype that is only used by order is not timed
    seconds = (
        5 + 1.6 * a_step * training_steps
    )  # 5 s to load; head, embeddings, optimizer and validation: about 0.6 more
    return f"about {seconds:.0f} s for {training_steps} steps on this machine" + (
        " (FAST: an illustration)" if FAST else ""
    )


def reference(name: str) -> Run:
    """A run that ships with the lab, to catch up with; when and where it was made stands in its environment.

    Raises: NotFound, naming those there are.
    """
    from lora_lab.training.assets import shipped
    from lora_lab.training.runs import Store

    folder = shipped("data/results")
    there = sorted(path.stem for path in folder.glob("*.json"))
    if name not in there:
        raise NotFound(f"no reference run is called '{name}'; there are {', '.join(there)}")
    return replace(Store(folder).read(name), adapter=str(folder / name))

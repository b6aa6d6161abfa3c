"""Reproduce the paper's tables and figures on a laptop: `item("table6")` returns one item, `run.reproduce` runs items.

expected   choose the steps, seeds, ... that fit the budget, given only this machine's speed; `plan` measures real steps
measured   return rows (every seed) and verdicts on `pairs`, by name; finished runs in the item's folder are reused
judged     decide by the item's rule whether the paper's finding holds, fails, is undecided, or was not tested

The models are small and the data aren't the paper's, so each item is a *surrogate*: its numbers can't equal the
published ones. The question is whether the paper's finding holds here, too. Each item's texts and settings are in
data/paper/reproduce.yaml. A rule sees only what result.json stores, so a new rule can judge an old result.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from lora_course.paper import facts
from lora_lab.errors import Failed, NotFound, nearest
from lora_lab.experiments.statistics import Verdict
from lora_lab.training.tasks import load_task

Standing = Literal["holds", "fails", "undecided", "not tested"]
Say = Callable[[str], None]
CHANCE, CEILING = 50.0, 95.0  # percent, for two classes


class Row(NamedTuple):
    """One value per seed or round."""

    name: str
    yours: tuple[float, ...]
    unit: str


class Kept(NamedTuple):
    """What a rule reads from result.json: values by row, sizes, and verdicts as `verdict_record` writes them."""

    rows: Mapping[str, Sequence[float]]
    sizes: Mapping[str, Any] = {}
    verdicts: Mapping[str, Mapping[str, Any]] = {}


class Judged(NamedTuple):
    """Whether the finding, or part of it, holds here, and why."""

    standing: Standing
    words: str


class Plan(NamedTuple):
    """An item's sizes (steps, seeds, ...), and the expected seconds."""

    sizes: Mapping[str, Any]
    seconds: float


class Place(NamedTuple):
    """An item's folder, its time budget in minutes, the function for its messages, and the event that stops it."""

    folder: Path
    minutes: float
    say: Say
    stop: threading.Event

    def rounds(self, wanted: int, least: int) -> Iterator[int]:
        """Count rounds until `stop` is set. Raises: Failed if `stop` is set before `least` rounds are done."""
        for number in range(wanted):
            if not self.stop.is_set():
                yield number
            elif number < least:
                raise Failed(f"time ran out after {number} rounds, but {least} are needed: allow more minutes")


class Item(SimpleNamespace):
    """One item; its attributes are the settings of its entry in reproduce.yaml, with `changes` applied."""

    def __init__(self, name: str, **changes: Any) -> None:
        super().__init__(**{"name": name, **described()[name], **changes})

    def plan(self, place: Place) -> Plan:
        """Plan from the time of a few real steps. Raises: BadValue for too few minutes."""
        return self.expected(place.minutes)

    def untested(self, kept: Kept) -> str:
        """Return why these runs can't test the finding (too short, scores too low or too high); "" if they can."""
        if self.passes:
            rows = self.fields.get("examples") or len(load_task(self.task).train)
            seen = kept.sizes["steps"] * self.batch / rows
            if seen < self.passes:
                return f"{kept.sizes['steps']} steps saw only {100 * seen:.0f}% of the training rows"
        low = max(kept.rows[self.floor]) if self.floor else CHANCE
        for name in sorted(self.learned):
            worst, best = min(kept.rows[name]), max(kept.rows[name])
            if worst < low + self.clear:
                floor = f"{self.above} ({low:.1f}%)"
                return f"{name} has a run at {worst:.1f}%, less than {self.clear:g} points above {floor}"
            if best > CEILING:
                return f"{name} has a run at {best:.1f}%, which leaves no room for improvement"
        return ""

    def judge(self, kept: Kept) -> Judged:
        """Apply the rule to runs that test the finding: by default, combine the verdicts on `pairs`."""
        return all_of({name: by_verdict(kept.verdicts[name], wanted) for name, (_, _, wanted) in self.pairs.items()})

    def judged(self, kept: Kept) -> Judged:
        """Apply the whole rule. If a value that the rule needs was not recorded, the finding counts as not tested."""
        try:
            reason, judged = self.untested(kept), self.judge(kept)
        except LookupError:  # an earlier version of the lab recorded other rows
            return Judged("not tested", "this result lacks values that the rule needs: repeat the item with --again")
        return Judged("not tested", f"{reason}. Not judged: {judged.words}") if reason else judged

    def paper_says(self, table: Any) -> dict[str, str]:
        """Format the paper's numbers by row, from its `Table`."""
        texts = {}
        for name, where in self.published.items():
            row = table.row(**{column: value for column, value in where.items() if column != "say"})
            texts[name] = where.get("say", self.say).format_map(row)
        return texts


def described() -> dict[str, dict[str, Any]]:
    """Load data/paper/reproduce.yaml: entries by item, in running order."""
    return {name: entry for name, entry in facts("paper/reproduce").items() if name != "defaults"}


def item(name: str, **changes: Any) -> Item:
    """Return the named item, with `changes` to its settings. Raises: NotFound."""
    if name not in described():
        raise NotFound(f"there is no item '{name}' to reproduce; nearest: {nearest(name, described())}")
    module, _, kind = described()[name]["kind"].partition(".")
    result: Item = getattr(import_module(f"{__name__}.{module}"), kind)(name, **changes)
    return result


def items(wanted: Iterable[str] = ()) -> list[Item]:
    """Return the named items without duplicates, by default all items. Raises: see `item`."""
    return [item(name) for name in dict.fromkeys(wanted or described())]


# ---- parts of rules


def verdict_record(found: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON, with the interval that its text shows: 90% for equivalence, else 95%."""
    low, high = (found.low, found.high) if found.outcome == "equivalent" else (found.low95, found.high95)
    result = {"outcome": found.outcome, "difference": found.difference, "low": low, "high": high}
    return {**result, "margin": found.margin, "words": str(found)}


def by_verdict(kept: Mapping[str, Any], wanted: str) -> Judged:
    """Judge a finding by a verdict. The finding fails only if the whole interval is beyond the margin.

    better      Holds if better, fails if worse by more than the margin.
    no worse    Holds if better or equivalent, fails if worse by more than the margin.
    equal       Holds if equivalent, fails if they differ by more than the margin.
    "worse" and "no better" are "better" and "no worse" with the two methods swapped.
    """
    outcome, margin = kept["outcome"], kept["margin"]
    below, above = kept["high"] < -margin, kept["low"] > margin
    holding, fails = {
        "better": (("better",), below),
        "no worse": (("better", "equivalent"), below),
        "equal": (("equivalent",), below or above),
        "worse": (("worse",), above),
        "no better": (("worse", "equivalent"), above),
    }[wanted]
    suffix = ", but not certainly by more than the margin" if outcome in ("better", "worse") else ""
    if outcome == "equivalent" and wanted in ("better", "worse"):
        suffix = f", so not {wanted} by more than the margin"
    decided = outcome in holding or fails
    return part(outcome in holding, fails, kept["words"] + ("" if decided else suffix))


def part(holds: bool, fails: bool, words: str) -> Judged:
    """Judge one part of a finding."""
    return Judged("holds" if holds else "fails" if fails else "undecided", words)


def all_of(parts: Mapping[str, Judged]) -> Judged:
    """Combine parts: holds if every part holds, fails if any part fails, else undecided."""
    standings = {judged.standing for judged in parts.values()}
    return part(standings == {"holds"}, "fails" in standings, "; ".join(f"{n}: {j.words}" for n, j in parts.items()))


def in_every(found: Collection[bool], least: int, words: str) -> Judged:
    """Combine one boolean per seed or pair (`least` are needed): holds if all are true, fails if none is."""
    count, enough = int(sum(found)), len(found) >= least
    text = f"{words}: true in {count} of {len(found)}{'' if enough else f', but {least} are needed'}"
    return part(enough and count == len(found), enough and not count, text)


class Interval(NamedTuple):
    """The median of values with its 95% bootstrap interval."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        draws = np.random.default_rng(0).choice(values, (2000, len(values)))
        low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
        return cls(float(np.median(values)), float(low), float(high))

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f} to {self.high:.3f})"


def in_words(sizes: Mapping[str, Any]) -> str:
    """Format sizes, as in "steps 120, seeds 3"."""
    return ", ".join(f"{name} {value}" for name, value in sizes.items())

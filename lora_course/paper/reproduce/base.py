"""A table of the paper, done again on a laptop: what such an item is, and what it may say.

    plan      sizes that fit the minutes on this machine, said before anything starts
    found     whatever was measured
    rows      published | expected | yours, with every seed
    judged    the paper's finding by a rule: holds, fails, undecided, or not tested

A rule has two parts. `untested` says why the runs cannot test the finding: too short, no better than the floor. `judge`
applies the rule proper. Both see only what result.json holds (`Kept`), so a result can be judged again by a new rule.

The models are small and the data others than the paper's: a *surrogate*. Its figures are not to equal the published
ones; asked is only whether what the paper found is found here, too.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from lora_lab.errors import Failed
from lora_lab.experiments.statistics import Verdict

Standing = Literal["holds", "fails", "undecided", "not tested"]
Wanted = Literal["better", "no worse", "equal", "worse", "no better"]
Pairs = Mapping[str, tuple[str, str, Wanted]]
Say = Callable[[str], None]
LATE = 1.03  # an item that takes so many times its minutes is stopped; the same call goes on with it


@dataclass(frozen=True)
class Row:
    """One line of a table: yours with every seed, in `unit`.

    What the paper prints, and what others reported, comes from its table: `published` and `others` of the item.
    `predictions` is a hash of what each seed's run predicts on the test rows: equal ones are one run, not luck.
    """

    name: str
    yours: tuple[float, ...]
    unit: str
    predictions: tuple[str, ...] = ()


class NotRecorded(Exception):
    """A rule asked for what result.json does not hold; its only argument is the name."""


class _Recorded(dict[str, Any]):
    """Raises: NotRecorded, in place of KeyError, which might as well be a mistake in a rule."""

    def __missing__(self, name: str) -> Any:
        raise NotRecorded(name)


@dataclass(frozen=True)
class Kept:
    """What result.json holds for a rule: figures by row, sizes, and verdicts as `kept_verdict` writes them.

    Each raises NotRecorded for a name that it does not hold.
    """

    rows: Mapping[str, Sequence[float]]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rows", "sizes", "verdicts"):
            object.__setattr__(self, name, _Recorded(getattr(self, name)))


@dataclass(frozen=True)
class Judged:
    """Whether the finding holds here, and why, in words."""

    standing: Standing
    words: str


@dataclass(frozen=True)
class Plan:
    """Sizes of an item (steps, seeds, ...), and the seconds it is expected to take with them."""

    sizes: Mapping[str, Any]
    seconds: float

    def __str__(self) -> str:
        return f"{in_words(self.sizes)}; about {max(self.seconds / 60, 0.1):.1f} min"


@dataclass(frozen=True)
class Place:
    """Where an item works, who hears of it, and what ends it: it is late, or somebody wants it to stop."""

    folder: Path
    minutes: float
    say: Say = lambda words: None
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Set `stop` when the item is late."""
        late = threading.Timer(LATE * 60 * self.minutes, self.stop.set)
        late.daemon = True
        late.start()
        try:
            yield
        finally:
            late.cancel()

    def rounds(self, wanted: int, least: int) -> Iterator[int]:
        """The numbers of so many rounds, fewer where the time is over. Raises: Failed where it is before the least."""
        for number in range(wanted):
            if self.stop.is_set():
                if number < least:
                    raise Failed(f"the time is over after {number} rounds, {least} are needed: give it more minutes")
                return
            yield number


class Item(ABC):
    """One table or figure of the paper and its surrogate.

    name      also the paper's table that it stands beside, see `paper/__init__.py`
    title     what is done here, on what
    finding   what the paper found, in a sentence
    rule      when it is tested, and by what it holds, fails or stays undecided, fixed before anything is run
    minutes   what it may take unless told otherwise
    limits    what makes it a surrogate, and what it cannot say
    axis      what its figures are, with their unit; line: where on it nothing is (chance, equality), to be drawn
    store     the folder of its runs, where items share them: the first trains for all
    pairs     the comparisons of the rule: the names of two methods, and what the first must be for the finding
    """

    name: ClassVar[str]
    title: ClassVar[str]
    finding: ClassVar[str]
    rule: ClassVar[str]
    minutes: ClassVar[float]
    limits: ClassVar[str]
    axis: ClassVar[str] = "test accuracy (%)"
    line: ClassVar[float | None] = None
    store: ClassVar[str] = ""
    pairs: ClassVar[Pairs] = {}

    @abstractmethod
    def expected(self, minutes: float) -> Plan:
        """The plan by this machine's speed alone, in a second or two. Raises: BadValue for too few minutes."""

    def plan(self, place: Place) -> Plan:
        """The plan by a few real steps. Raises: BadValue for too few minutes."""
        return self.expected(place.minutes)

    @abstractmethod
    def run(self, plan: Plan, place: Place) -> Any:
        """What was measured; what the folder has already is not done again. Raises: Failed when it was stopped."""

    @abstractmethod
    def rows(self, found: Any) -> list[Row]:
        """The table, without the paper's side."""

    def verdicts(self, found: Any) -> Mapping[str, Verdict]:
        """By the names of `pairs`."""
        return {}

    def untested(self, kept: Kept) -> str:
        """Why these runs do not test the finding; empty where they do."""
        return ""

    def judge(self, kept: Kept) -> Judged:
        """The rule applied to runs that test the finding."""
        return all_of({name: by_verdict(kept.verdicts[name], wanted) for name, (_, _, wanted) in self.pairs.items()})

    def judged(self, kept: Kept) -> Judged:
        """The whole rule. What it needs and is not there leaves the finding not tested."""
        reason = ""
        try:
            reason = self.untested(kept)
            judged = self.judge(kept)
        except NotRecorded as missing:
            return Judged("not tested", reason or f"{missing} is not recorded")
        return Judged("not tested", f"{reason}. Not judged: {judged.words}") if reason else judged

    def folder(self, place: Place) -> Path:
        """Where its plan and its runs are kept, or those of all items that share them."""
        return place.folder.parent / (self.store or self.name)

    def published(self, table: Any) -> Mapping[str, str]:
        """The paper's figures in words, by the name of a row, from its `Table`."""
        return {}

    def others(self, table: Any) -> Mapping[str, str]:
        """What others reported, in words, by the name of a row, from the paper's `Table`."""
        return {}


def kept_verdict(found: Verdict) -> dict[str, Any]:
    """A verdict as JSON, with the interval that its words show: 90 % where it is equivalence, else 95 %."""
    ends = (found.low, found.high) if found.outcome == "equivalent" else (found.low95, found.high95)
    told = {"outcome": found.outcome, "difference": found.difference, "low": ends[0], "high": ends[1]}
    return {**told, "margin": found.margin, "words": str(found)}


def by_verdict(kept: Mapping[str, Any], wanted: Wanted) -> Judged:
    """Whether a verdict is what a finding wants; it fails where the whole interval lies beyond the margin against it.

    better      holds if better, fails if worse by more than the margin
    no worse    holds if better or equivalent, fails if worse by more than the margin
    equal       holds if equivalent, fails if apart by more than the margin
    "worse" and "no better" are the same of the second against the first.
    """
    outcome, margin = kept["outcome"], kept["margin"]
    below, above = kept["high"] < -margin, kept["low"] > margin  # the whole interval
    holding, fails = {
        "better": (("better",), below),
        "no worse": (("better", "equivalent"), below),
        "equal": (("equivalent",), below or above),
        "worse": (("worse",), above),
        "no better": (("worse", "equivalent"), above),
    }[wanted]
    holds = outcome in holding
    unsure = outcome in ("better", "worse") and not (holds or fails)
    also = ", but not certainly by more than the margin" if unsure else ""
    if outcome == "equivalent" and not holds and wanted in ("better", "worse"):
        also = f", so not {wanted} by more than the margin"
    return part(holds, fails, f"{kept['words']}{also}")


def part(holds: bool, fails: bool, words: str) -> Judged:
    """A part of a finding."""
    return Judged("holds" if holds else "fails" if fails else "undecided", words)


def all_of(parts: Mapping[str, Judged]) -> Judged:
    """Holds where every part does, fails where one does, else undecided."""
    found = {one.standing for one in parts.values()}
    return part(found == {"holds"}, "fails" in found, "; ".join(f"{name}: {one.words}" for name, one in parts.items()))


def in_every(found: Collection[bool], least: int, words: str) -> Judged:
    """Holds where it is true in all of at least `least` seeds, or pairs of seeds, fails where in none of them."""
    yes, enough = sum(found), len(found) >= least
    said = f"{words}: true in {yes} of {len(found)}{'' if enough else f', and {least} are needed'}"
    return part(enough and yes == len(found), enough and not yes, said)


def in_words(sizes: Mapping[str, Any]) -> str:
    """Sizes as a list: "steps 120, seeds 3"."""
    return ", ".join(f"{name} {value}" for name, value in sizes.items())

"""A table of the paper, done again on a laptop: what such an item is, and what it may say.

    plan      sizes that fit the minutes on this machine, said before anything starts
    found     whatever was measured
    rows      published | expected | yours, with every seed
    judged    the paper's finding by a rule stated beforehand: holds, fails, undecided

The models are small and the data others than the paper's: a *surrogate*. Its figures are not to equal the published
ones; asked is only whether what the paper found is found here, too.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from lora_lab.errors import Failed
from lora_lab.experiments.statistics import Verdict

Standing = Literal["holds", "fails", "undecided"]
Say = Callable[[str], None]
LATE = 1.03  # an item that takes so many times its minutes is stopped; the same call goes on with it


@dataclass(frozen=True)
class Row:
    """One line of a table: yours with every seed, in `unit`.

    What the paper prints, and what independent people got, comes from its table: `published` and `others` of the item.
    """

    name: str
    yours: tuple[float, ...]
    unit: str


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

    name      also the paper's table that it stands beside, see `experiments/paper.py`
    title     what is done here, on what
    finding   what the paper found, in a sentence
    rule      by which it holds, fails or stays undecided, fixed before anything is run
    minutes   what it may take unless told otherwise
    limits    what makes it a surrogate, and what it cannot say
    axis      what its figures are, with their unit; line: where on it nothing is (chance, equality), to be drawn
    store     the folder of its runs, where items share them: the first trains for all
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

    @abstractmethod
    def judge(self, found: Any) -> Judged:
        """The rule applied."""

    def folder(self, place: Place) -> Path:
        """Where its plan and its runs are kept, or those of all items that share them."""
        return place.folder.parent / (self.store or self.name)

    def published(self, table: Any) -> Mapping[str, str]:
        """The paper's figures in words, by the name of a row, from its `Table`."""
        return {}

    def others(self, table: Any) -> Mapping[str, str]:
        """What independent people got, in words, by the name of a row, from the paper's `Table`."""
        return {}


def by_verdicts(found: Mapping[str, Verdict], hoped: Collection[str], refuted: Collection[str]) -> Judged:
    """Holds where every verdict is one of the hoped, fails where any is one of the refuted, else undecided."""
    outcomes = [one.outcome for one in found.values()]
    standing: Standing = "undecided"
    if any(outcome in refuted for outcome in outcomes):
        standing = "fails"
    elif outcomes and all(outcome in hoped for outcome in outcomes):
        standing = "holds"
    return Judged(standing, "; ".join(f"{name}: {one}" for name, one in found.items()))


def in_every(found: Collection[bool], least: int, words: str) -> Judged:
    """Holds where it is so in all of at least `least` independent cases, fails where in none of them."""
    if len(found) < least:
        return Judged("undecided", f"{words}; {len(found)} cases are too few, {least} would do")
    yes = sum(found)
    standing: Standing = "holds" if yes == len(found) else "fails" if not yes else "undecided"
    return Judged(standing, f"{words}; so in {yes} of {len(found)} cases")


def in_words(sizes: Mapping[str, Any]) -> str:
    """Sizes as a list: "steps 120, seeds 3"."""
    return ", ".join(f"{name} {value}" for name, value in sizes.items())

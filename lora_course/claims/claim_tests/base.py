"""What an experiment on a claim brings back: cases, in each of which the claim holds, fails, or cannot be told.

    every case holds             true
    every case fails             false
    some hold and some fail      depends, on the settings that make the difference;
                                 of a claim that says "always", one failure is enough: false
    else                         undecided, with what would decide it

The word is not the experiment's to choose: it follows from the cases.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeVar

from lora_lab.errors import BadValue, nearest

Word = Literal["true", "false", "depends", "undecided"]
WORDS: tuple[Word, ...] = ("true", "false", "depends", "undecided")
STORE = "store"  # the parameter of an experiment that reads finished runs; no premise
SHOWN = 4  # cases up to which a sentence tells them all


@dataclass(frozen=True)
class Case:
    """One case that a claim was tried on.

    settings    what was chosen: {"model": "llama-2-70b", "rank": 8}
    holds       whether the claim holds in it; None where it cannot be told
    found       what was counted or measured, with its unit
    would_tell  where it cannot be told, what would tell it
    """

    settings: Mapping[str, Any]
    holds: bool | None
    found: str
    would_tell: str = ""

    @property
    def where(self) -> str:
        """The settings in words: "model llama-2-70b, rank 8"."""
        return ", ".join(f"{name} {said(value)}" for name, value in self.settings.items())

    def __str__(self) -> str:
        return f"{self.where}: {self.found}" if self.settings else self.found


@dataclass(frozen=True)
class Finding:
    """The cases of an experiment and where they are from.

    evidence  what was counted, measured or read, with source, date and machine where there is one
    always    the claim is made for all cases alike, so that a single failure refutes it
    note      a figure to know beside the cases, in a sentence
    figures   the main numbers by name
    """

    cases: tuple[Case, ...]
    evidence: tuple[str, ...]
    always: bool = False
    note: str = ""
    figures: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def word(self) -> Word:
        """What follows from the cases."""
        outcomes = {case.holds for case in self.cases}
        if {True, False} <= outcomes and not self.always:
            return "depends"
        if False in outcomes and (self.always or outcomes == {False}):
            return "false"
        return "true" if outcomes == {True} else "undecided"

    @property
    def on(self) -> tuple[str, ...]:
        """Of "depends": one setting that explains all outcomes, else those whose change alone turns an outcome."""
        if self.word != "depends":
            return ()
        told = [case for case in self.cases if case.holds is not None]
        varied = [n for n in _names(told) if len({said(case.settings.get(n)) for case in told}) > 1]
        alone = [name for name in varied if _explains(name, told)]
        return tuple(alone[:1] or [name for name in varied if _turns(name, told)] or varied)

    @property
    def because(self) -> str:
        """The figures that the word rests on, in a sentence or two."""
        told = "; ".join(map(str, self.cases)) if len(self.cases) <= SHOWN else self._in_short()
        return f"{told}. {self.note}".strip() if self.note else f"{told}."

    @property
    def would_tell(self) -> str:
        """Of "undecided": what would decide it."""
        if self.word != "undecided":
            return ""
        unsettled = [case for case in self.cases if case.holds is None]
        ways = dict.fromkeys(case.would_tell for case in unsettled)
        return next(iter(ways)) if len(ways) == 1 else "; ".join(f"{c.where}: {c.would_tell}" for c in unsettled)

    def _in_short(self) -> str:
        """How many cases came out how, and an example of each."""
        parts = []
        for outcome, verb in ((True, "holds"), (False, "fails"), (None, "cannot be told")):
            some = [case for case in self.cases if case.holds is outcome]
            parts += [f"{verb} in {len(some)} of {len(self.cases)} cases ({some[0]})"] if some else []
        return "; ".join(parts)


Experiment = Callable[..., Finding]
EXPERIMENTS: dict[str, Experiment] = {}
F = TypeVar("F", bound=Experiment)


def experiment(function: F) -> F:
    """Register an experiment under its own name; its parameters are the premises that its cards must state."""
    EXPERIMENTS[function.__name__] = function
    return function


def wanted(name: str) -> tuple[str, ...]:
    """The premises that an experiment asks for."""
    return tuple(p for p in inspect.signature(EXPERIMENTS[name]).parameters if p != STORE)


def said(value: Any) -> str:
    """A setting as people write it: 0.0001, llama-2-7b, q+v."""
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def check_known(given: Iterable[str], known: Collection[str], what: str) -> None:
    """Raises: BadValue for a word that is none of these, with the nearest."""
    for word in given:
        if word not in known:
            raise BadValue(f"{what} are {said(list(known))}, not '{word}'; nearest: {nearest(word, known)}")


def roles(targets: str) -> tuple[str, ...]:
    """Targets as a card writes them, "q+v" or "all-linear", as a method takes them."""
    return tuple(targets.replace(",", "+").split("+"))


def _names(cases: Sequence[Case]) -> list[str]:
    return list(dict.fromkeys(name for case in cases for name in case.settings))


def _explains(name: str, cases: Iterable[Case]) -> bool:
    """Whether every value of a setting comes with one outcome only."""
    outcomes: dict[str, set[bool | None]] = {}
    for case in cases:
        outcomes.setdefault(said(case.settings.get(name)), set()).add(case.holds)
    return all(len(found) == 1 for found in outcomes.values())


def _turns(name: str, cases: Sequence[Case]) -> bool:
    """Whether two cases that differ in this setting alone come out differently."""
    pairs = ((a, b) for a, b in combinations(cases, 2) if a.holds != b.holds)
    return any(_differ(a, b) == {name} for a, b in pairs)


def _differ(a: Case, b: Case) -> set[str]:
    return {name for name in {*a.settings, *b.settings} if a.settings.get(name) != b.settings.get(name)}

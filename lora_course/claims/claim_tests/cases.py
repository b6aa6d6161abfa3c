"""An experiment on a claim returns cases: in each the claim holds, fails, or cannot be told. The word follows.

every case holds             true
every case fails             false
some hold and some fail      depends, on the settings that make the difference;
                             for a claim that says "always", one failure is enough: false
else                         undecided, with what would decide it
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, TypeVar

from lora_lab.errors import BadValue, nearest

Word = Literal["true", "false", "depends", "undecided"]
WORDS: tuple[Word, ...] = ("true", "false", "depends", "undecided")
VERBS = {True: "holds", False: "fails", None: "cannot be told"}
STORE = "store"  # the parameter of an experiment that reads finished runs; no premise
SHOWN = 4  # cases up to which a sentence tells them all


@dataclass(frozen=True)
class Case:
    """One case that a claim was tried on.

    settings    what was chosen: {"model": "llama-2-70b", "rank": 8}
    holds       whether the claim holds in it; None if it cannot be told
    found       what was counted or measured, with its unit
    would_tell  what would tell, if it cannot be told
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

    evidence  what was counted, measured or read, with source, date and machine
    always    the claim is made for all cases alike, so that a single failure refutes it
    note      a sentence to know beside the cases
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
        """For "depends": one setting that explains all outcomes, else those whose change alone turns an outcome."""
        if self.word != "depends":
            return ()
        told = [({name: said(v) for name, v in case.settings.items()}, case.holds) for case in self.cases]
        told = [(settings, holds) for settings, holds in told if holds is not None]
        names = dict.fromkeys(name for settings, _ in told for name in settings)
        varied = [name for name in names if len({settings.get(name) for settings, _ in told}) > 1]
        for name in varied:
            outcomes = {(settings.get(name), holds) for settings, holds in told}
            if len(outcomes) == len({value for value, _ in outcomes}):
                return (name,)
        pairs = ((a, b) for (a, yes), (b, no) in combinations(told, 2) if yes != no)
        differ = [{name for name in varied if a.get(name) != b.get(name)} for a, b in pairs]
        return tuple(name for name in varied if {name} in differ) or tuple(varied)

    @property
    def because(self) -> str:
        """The figures that the word rests on: all cases, or of many how they came out and an example of each."""
        told = "; ".join(map(str, self.cases))
        if len(self.cases) > SHOWN:
            of = {holds: [case for case in self.cases if case.holds is holds] for holds in VERBS}
            told = "; ".join(
                f"{VERBS[holds]} in {len(some)} of {len(self.cases)} cases ({some[0]})"
                for holds, some in of.items()
                if some
            )
        return f"{told}. {self.note}".strip()

    @property
    def would_tell(self) -> str:
        """For "undecided": what would decide it."""
        if self.word != "undecided":
            return ""
        unsettled = [case for case in self.cases if case.holds is None]
        ways = {case.would_tell for case in unsettled}
        return ways.pop() if len(ways) == 1 else "; ".join(f"{c.where}: {c.would_tell}" for c in unsettled)


EXPERIMENTS: dict[str, Callable[..., Finding]] = {}
F = TypeVar("F", bound=Callable[..., Finding])


def experiment(function: F) -> F:
    """Register an experiment under its own name; its parameters are the premises that its cards must state."""
    EXPERIMENTS[function.__name__] = function
    return function


def wanted(name: str) -> tuple[str, ...]:
    """The premises that an experiment asks for."""
    return tuple(p for p in inspect.signature(EXPERIMENTS[name]).parameters if p != STORE)


def said(value: Any) -> str:
    """A setting as people write it: 0.0001, llama-2-7b, yes, 8, 16."""
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

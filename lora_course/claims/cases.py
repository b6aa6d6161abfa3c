"""An experiment tests a claim in several cases. In each case, the claim holds, fails, or is undecided. The verdict is

true         if the claim holds in every case
false        if it fails in every case; if it must hold in all, one failure is enough
depends      if it holds in some cases and fails in others; the verdict names the settings that make the difference
undecided    otherwise; the verdict says what would decide the claim
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from lora_lab.methods.base import one_of

Word = Literal["true", "false", "depends", "undecided"]
VERBS = {True: "holds", False: "fails", None: "is undecided"}
STORE = "store"  # a parameter of the experiments that read finished runs; not a premise
SHOWN = 4  # up to this many cases are listed in full


@dataclass(frozen=True)
class Case:
    """One test of a claim.

    settings    The choices: {"model": "llama-2-70b", "rank": 8}.
    holds       Whether the claim holds; None if undecided (`would_tell` says what would decide it).
    found       What was counted or measured, with its unit.
    span        (low, value, high) on the axis of its `Finding`; () if the case has no value there.
    """

    settings: Mapping[str, Any]
    holds: bool | None
    found: str
    would_tell: str = ""
    span: tuple[float, ...] = ()

    @property
    def where(self) -> str:
        """The settings as text: "model llama-2-70b, rank 8"."""
        return ", ".join(f"{name} {as_text(value)}" for name, value in self.settings.items())

    def __str__(self) -> str:
        return f"{self.where}: {self.found}" if self.settings else self.found


@dataclass(frozen=True)
class Finding:
    """The cases of an experiment and where they come from.

    evidence  What was counted, measured or read, with source, date and machine.
    axis      What `Case.span` measures, with its unit; `log`: whether its scale is logarithmic.
    limits    The values on this axis at which the outcome changes.
    always    Whether the claim covers every case, so that one failure refutes it.
    figures   The main numbers by name.
    """

    cases: tuple[Case, ...]
    evidence: tuple[str, ...]
    axis: str = ""
    limits: tuple[float, ...] = ()
    log: bool = False
    always: bool = False
    figures: Mapping[str, float | int | str] = field(default_factory=dict)

    @property
    def word(self) -> Word:
        """The verdict that follows from the cases."""
        outcomes = {case.holds for case in self.cases}
        if {True, False} <= outcomes and not self.always:
            return "depends"
        if False in outcomes and (self.always or outcomes == {False}):
            return "false"
        return "true" if outcomes == {True} else "undecided"

    @property
    def on(self) -> tuple[str, ...]:
        """For "depends": the setting that explains all outcomes, or else each setting that alone changes an outcome."""
        if self.word != "depends":
            return ()
        decided = [({n: as_text(v) for n, v in c.settings.items()}, c.holds) for c in self.cases if c.holds is not None]
        names = dict.fromkeys(name for settings, _ in decided for name in settings)
        varied = [name for name in names if len({settings.get(name) for settings, _ in decided}) > 1]
        for name in varied:
            outcomes = {(settings.get(name), holds) for settings, holds in decided}
            if len(outcomes) == len({value for value, _ in outcomes}):
                return (name,)
        pairs = ((a, b) for (a, yes), (b, no) in combinations(decided, 2) if yes != no)
        differ = [{name for name in varied if a.get(name) != b.get(name)} for a, b in pairs]
        return tuple(name for name in varied if {name} in differ) or tuple(varied)

    @property
    def because(self) -> str:
        """The numbers behind the verdict: all cases, or counts and an example of each outcome."""
        if len(self.cases) <= SHOWN:
            return ("; ".join(map(str, self.cases)) or "no case meets these premises") + "."
        groups = {verb: [case for case in self.cases if case.holds is holds] for holds, verb in VERBS.items()}
        counts = ((verb, f"{len(cases)} of {len(self.cases)}", cases[0]) for verb, cases in groups.items() if cases)
        return "; ".join(f"{verb} in {count} cases ({example})" for verb, count, example in counts) + "."

    @property
    def would_tell(self) -> str:
        """What would decide the claim if the verdict is "undecided"."""
        undecided = [case for case in self.cases if case.holds is None and self.word == "undecided"]
        where = {c.would_tell: [o.where for o in undecided if o.would_tell == c.would_tell] for c in undecided}
        cases = {tell: " and ".join(w) if len(w) < 3 else f"{len(w)} cases" for tell, w in where.items()}
        return "; ".join(f"{cases[tell]}: {tell}" if len(cases) > 1 else tell for tell in cases)


def as_text(value: Any) -> str:
    """Format a setting for people to read: 0.0001, llama-2-7b, yes, or "8, 16"."""
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def check_known(given: Iterable[Any], known: Collection[Any], what: str) -> None:
    """Raises: BadValue for an unknown word."""
    for word in given:
        one_of(what, word, tuple(known))

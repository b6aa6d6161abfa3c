"""Claims as cards, and the verdicts that experiments compute from cards.

    data/claims/x.yaml  ->  Card  ->  judge("x", gpu_gb=48)  ->  Verdict("true", because, figures, evidence)

A card stores no verdict. Premises are the arguments of the card's experiment: if one changes, the experiment reruns.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from lora_course.claims.cases import STORE, Finding, as_text
from lora_lab.errors import BadValue, NotFound, nearest, printable
from lora_lab.training.assets import shipped

Value = bool | int | float | str | list[Any]
MARKS: Mapping[str, str] = {"true": "✓", "false": "✗", "depends": "◐", "undecided": "?"}  # color isn't the only cue


@dataclass(frozen=True)
class Premise:
    """A number or choice that a claim depends on; `options` are the values that the panel offers."""

    name: str
    value: Value
    means: str
    options: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Card:
    """A claim in testable form.

    prediction    What the experiment must find if the claim is right.
    all_premises  The premises by name; a `margin` is the largest difference that doesn't matter, in points of accuracy.
    limits        What the verdict doesn't show.
    """

    id: str
    number: str
    statement: str
    said_by: str
    source: str
    prediction: str
    experiment: str
    all_premises: Mapping[str, Premise]
    limits: str

    def __str__(self) -> str:
        return f'{self.number} "{self.statement}" ({self.said_by})'


@dataclass(frozen=True, kw_only=True)
class Verdict(Finding):
    """What a card's experiment found with these premises; `str(verdict)` is a summary."""

    card: Card
    premises: Mapping[str, Value]

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the premises whose values differ from the card's."""
        return tuple(name for name, p in self.card.all_premises.items() if self.premises[name] != p.value)

    @property
    def words(self) -> str:
        """The verdict, with the settings on which it depends."""
        return f"depends on {listed(self.on)}" if self.on else self.word

    def __str__(self) -> str:
        decide = f" What would decide it: {self.would_tell}." if self.would_tell else ""
        premises = ", ".join(f"{name} {as_text(self.premises[name])}" for name in self.changed)
        return printable(f"{self.words}{f' (with {premises})' if premises else ''}: {self.because}{decide}")

    def __repr__(self) -> str:
        return printable(f"{self.card}\n{self}\nNot shown: {self.card.limits}", "\n")

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        card = {name: getattr(self.card, name) for name in ("id", "number", "statement", "said_by", "source")}
        texts = {name: getattr(self, name) for name in ("word", "because", "would_tell")}
        lists = {name: list(getattr(self, name)) for name in ("on", "evidence", "changed")}
        cases = [{"settings": dict(c.settings), "holds": c.holds, "found": c.found} for c in self.cases]
        counts = {"cases": len(self.cases), "hold": sum(case.holds is True for case in self.cases)}
        return {**card, **texts, **lists, "cases": cases, "premises": dict(self.premises),
                "figures": {**counts, **self.figures}}  # fmt: skip


@cache
def load_cards() -> dict[str, Card]:
    """Load the cards from data/claims, keyed by id, in numerical order."""
    files = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in shipped("data/claims").glob("*.yaml")]
    cards = {}
    for values in sorted(files, key=lambda values: int(values["number"])):
        given = values.pop("premises") | {"margin": values.pop("margin")}  # None if nothing is compared
        premises = {n: Premise(n, p["value"], p["means"], tuple(p.get("try") or ())) for n, p in given.items() if p}
        texts = {key: str(value).strip() for key, value in values.items()}
        cards[texts["id"]] = Card(**texts, all_premises=premises)
    return cards


def card(name: str) -> Card:
    """Return a shipped card by id or number. Raises: NotFound with the nearest id."""
    cards, name = {**{card.number: card for card in load_cards().values()}, **load_cards()}, str(name)
    if name not in cards:
        raise NotFound(f"there is no claim '{name}'; nearest: {nearest(name, load_cards())}")
    return cards[name]


def judge(of: str, /, *, store: str | Path | None = None, **changed: Any) -> Verdict:
    """Run a card's experiment, with some of its premises changed.

    store  A folder of your own finished runs, for experiments that read runs; by default, the lab's runs.
    Raises: NotFound for an unknown card; BadValue for an unknown premise (with the nearest name) or invalid value.
    """
    from lora_course.claims import experiments  # imported late: a card loads without this module

    claim = card(of)
    defaults = claim.all_premises
    for name in changed:
        if name not in defaults:
            raise BadValue(f"claim {claim.id} has no premise '{name}'; nearest: {nearest(name, defaults)}")
    premises = {
        n: _parsed(p.value, changed.get(n, p.value), f"the premise '{n}' of claim {claim.id}")
        for n, p in defaults.items()
    }
    if not 0 < (margin := premises.get("margin", 1)) < 100:
        raise BadValue(f"the margin of claim {claim.id} must be between 0 and 100 points, such as 1.5, not {margin}")
    run = vars(experiments)[claim.experiment]
    arguments = {n: v / 100 if n == "margin" else v for n, v in premises.items()}
    if store is not None:
        if not str(store):  # "", as from an unset variable, would mean the lab's own runs
            raise BadValue("pass a folder of runs as the store, not ''")
        if STORE not in signature(run).parameters:
            raise BadValue(f"claim {claim.id} does not depend on any runs: omit the store")
        arguments[STORE] = store
    return Verdict(**vars(run(**arguments)), card=claim, premises=premises)


def judge_all() -> dict[str, Verdict]:
    """Judge every card that ships with the lab; return the verdicts by id."""
    return {name: judge(name) for name in load_cards()}


def listed(names: Sequence[str]) -> str:
    """Join names as in "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _parsed(example: Any, value: Any, what: str) -> Any:
    """Convert a value, such as a string from the command line, to the example's type."""
    if isinstance(example, list):
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        if not parts:
            raise BadValue(f"{what} needs at least one value")
        return [_parsed(example[0], part, what) for part in parts]
    text = str(value).strip()
    parsed: Any = None
    if isinstance(example, str):
        kind, parsed = "a word", text or None
    elif isinstance(example, bool):
        kind, parsed = "yes or no", {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
    else:
        kind = "a number"
        with suppress(ValueError, OverflowError):
            whole = round(number := float(text))  # raises for nan and inf
            parsed = whole if isinstance(example, int) and number == whole else number
    if parsed is None:
        raise BadValue(f"{what} must be {kind}, such as {as_text(example)}, not {value!r}")
    return parsed

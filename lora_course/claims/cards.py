"""Claims as cards, and the verdicts that experiments compute from cards.

    data/claims/x.yaml  ->  Card  ->  judge("x", gpu_gb=48)  ->  Verdict("true", because, figures, evidence)

A card stores no verdict. Its premises are the arguments of its experiment: change a premise, and the experiment reruns.
"""

from collections.abc import Mapping, Sequence
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

    prediction    what the experiment must find if the claim is right
    all_premises  by name; a `margin` is the largest difference that doesn't matter, in points of accuracy
    limits        what the verdict doesn't show
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
        """The verdict; "depends" names the settings it depends on."""
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
    """Load the cards of data/claims, by id and in numerical order."""
    files = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in shipped("data/claims").glob("*.yaml")]
    return {values["id"]: _card(values) for values in sorted(files, key=lambda values: int(values["number"]))}


def _card(values: dict[str, Any]) -> Card:
    given = values.pop("premises") | {"margin": values.pop("margin")}  # None if nothing is compared
    premises = {key: Premise(key, p["value"], p["means"], tuple(p.get("try") or ())) for key, p in given.items() if p}
    return Card(**{key: str(value).strip() for key, value in values.items()}, all_premises=premises)


def card(name: str) -> Card:
    """Return a shipped card by id or number. Raises: NotFound with the nearest id."""
    cards = {**{card.number: card for card in load_cards().values()}, **load_cards()}
    if name not in cards:
        raise NotFound(f"there is no claim '{name}'; nearest: {nearest(name, load_cards())}")
    return cards[name]


def judge(of: str, *, store: str | Path | None = None, **changed: Any) -> Verdict:
    """Run a card's experiment, with some of its premises changed.

    store  a folder of your own finished runs, for experiments that read runs; by default, the lab's runs
    Raises: NotFound for an unknown card; BadValue for an unknown premise (with the nearest name) or invalid value.
    """
    from lora_course.claims import experiments  # late: loads much that a card alone doesn't need

    claim = card(of)
    defaults = claim.all_premises
    for name in changed:
        if name not in defaults:
            raise BadValue(f"claim {claim.id} has no premise '{name}'; nearest: {nearest(name, defaults)}")
    premises: dict[str, Any] = {n: _parsed(claim, n, changed.get(n, p.value)) for n, p in defaults.items()}
    run = vars(experiments)[claim.experiment]
    reads_runs = STORE in signature(run).parameters
    if store is not None and not reads_runs:
        raise BadValue(f"claim {claim.id} does not depend on any runs: omit the store")
    arguments = {n: v / 100 if n == "margin" else v for n, v in premises.items()}
    try:
        finding = run(**arguments, **({STORE: store} if reads_runs else {}))
    except (ArithmeticError, IndexError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        changes = ", ".join(f"{n} {as_text(v)}" for n, v in premises.items() if v != defaults[n].value)
        if isinstance(error, BadValue) or not changes:
            raise
        raise BadValue(f"claim {claim.id} cannot be tested with {changes}: {error}") from error
    return Verdict(**vars(finding), card=claim, premises=premises)


def judge_all() -> dict[str, Verdict]:
    """Judge every card that ships with the lab; return the verdicts by id."""
    return {name: judge(name) for name in load_cards()}


def listed(names: Sequence[str]) -> str:
    """Join names as in "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _parsed(card: Card, name: str, value: Any) -> Value:
    """Convert a premise's value to the type of the card's value, such as a list or a number."""
    default, what = card.all_premises[name].value, f"the premise '{name}' of claim {card.id}"
    if isinstance(default, list):
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        if not parts:
            raise BadValue(f"{what} needs at least one value")
        return [_convert(default[0], part, what) for part in parts]
    if isinstance(value, list | tuple):
        raise BadValue(f"{what} must be a single value, such as {as_text(default)}")
    return _convert(default, value, what)


def _convert(example: Any, value: Any, what: str) -> Any:
    """Convert a value to the example's type, parsing text."""
    if isinstance(example, str):
        if isinstance(value, str) and value.strip():
            return value.strip()
        raise BadValue(f"{what} must be a word, such as {example}, not {value!r}")
    text = str(value).strip().lower()
    if isinstance(example, bool):
        if text in ("true", "yes", "false", "no"):
            return text in ("true", "yes")
        raise BadValue(f"{what} must be yes or no, not {value!r}")
    try:
        whole = round(number := float(text))  # raises for nan and inf
    except (ValueError, OverflowError):
        raise BadValue(f"{what} must be a number, such as {example:g}, not {value!r}") from None
    return whole if isinstance(example, int) and number == whole else number

"""Claims as cards, and verdicts that the machine computes.

    data/claims/x.yaml  ->  Card  ->  judge(card, gpu_gb=48)  ->  Verdict("true", because, figures, evidence)

A card holds no verdict. Its premises are the arguments of its experiment: change one, and the experiment runs again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from lora_course.claims.cases import EXPERIMENTS, STORE, Finding, said, wanted
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.training.assets import shipped

Value = bool | int | float | str | list[Any]
MARKS: Mapping[str, str] = {"true": "✓", "false": "✗", "depends": "◐", "undecided": "?"}  # not by color alone


@dataclass(frozen=True)
class Premise:
    """A number or a choice that a claim rests on; `options` are the values that the panel offers."""

    name: str
    value: Value
    means: str
    options: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Card:
    """A claim in a form that you can test.

    prediction  what must be found if the claim is right
    margin      the largest difference that doesn't matter, in points of accuracy; None if nothing is compared
    limits      what the verdict doesn't show
    """

    id: str
    number: str
    statement: str
    said_by: str
    source: str
    prediction: str
    experiment: str
    premises: tuple[Premise, ...]
    margin: Premise | None
    limits: str

    @property
    def all_premises(self) -> dict[str, Premise]:
        """Premises by name, with the margin."""
        return {p.name: p for p in (*self.premises, *((self.margin,) if self.margin else ()))}

    def __str__(self) -> str:
        return f'{self.number} "{self.statement}" ({self.said_by})'


FIELDS = tuple(f.name for f in fields(Card))


@dataclass(frozen=True, kw_only=True)
class Verdict(Finding):
    """What a card's experiment found with these premises; `str(verdict)` says it."""

    card: Card
    premises: Mapping[str, Value]

    @property
    def changed(self) -> tuple[str, ...]:
        """The premises that differ from the card's."""
        return tuple(name for name, p in self.card.all_premises.items() if self.premises[name] != p.value)

    @property
    def words(self) -> str:
        """The word; for "depends" with on what."""
        return f"depends on {listed(self.on)}" if self.on else self.word

    def __str__(self) -> str:
        tell = f" What would decide it: {self.would_tell}." if self.would_tell else ""
        premises = ", ".join(f"{name} {said(self.premises[name])}" for name in self.changed)
        return f"{self.words}{f' (with {premises})' if premises else ''}: {self.because}{tell}"

    def __repr__(self) -> str:
        return f"{self.card}\n{self}\nNot shown: {self.card.limits}"

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain values."""
        card = {name: getattr(self.card, name) for name in ("id", "number", "statement", "said_by", "source")}
        own = {name: getattr(self, name) for name in ("word", "because", "would_tell")}
        lists = {name: list(getattr(self, name)) for name in ("on", "evidence", "changed")}
        cases = [{"settings": dict(c.settings), "holds": c.holds, "found": c.found} for c in self.cases]
        counted = {"cases": len(self.cases), "hold": sum(case.holds is True for case in self.cases)}
        return {**card, **own, **lists, "cases": cases, "premises": dict(self.premises),
                "figures": {**counted, **self.figures}}  # fmt: skip


@cache
def _shipped() -> dict[str, Card]:
    cards = [card_from(file.read_text(encoding="utf-8"), file.stem) for file in shipped("data/claims").glob("*.yaml")]
    return {card.id: card for card in sorted(cards, key=lambda card: int(card.number))}


def load_cards() -> dict[str, Card]:
    """The cards that ship with the lab by id, in the order of their numbers."""
    return dict(_shipped())


def card(name: str) -> Card:
    """A card that ships with the lab, by its id or number. Raises: NotFound with the nearest."""
    cards = {**{one.number: one for one in _shipped().values()}, **_shipped()}
    if name not in cards:
        raise NotFound(f"no claim is called '{name}'; nearest: {nearest(name, _shipped())}")
    return cards[name]


def judge(of: Card | str, *, store: str | Path | None = None, **changed: Any) -> Verdict:
    """Run a card's experiment, with some of its premises changed.

    store  a folder of your own finished runs, for an experiment that reads runs; by default ours
    Raises: NotFound for an unknown card; BadValue for an unknown premise, with the nearest, or an impossible value.
    """
    one = card(of) if isinstance(of, str) else of
    known = one.all_premises
    for name in changed:
        if name not in known:
            raise BadValue(f"claim {one.id} has no premise '{name}'; nearest: {nearest(name, known)}")
    premises = {name: _taken(one, name, changed.get(name, p.value)) for name, p in known.items()}
    run = _experiment(one.experiment)
    reads = STORE in signature(run).parameters
    if store is not None and not reads:
        raise BadValue(f"claim {one.id} isn't judged by finished runs: leave the store out")
    taken = {n: v / 100 if n == "margin" and isinstance(v, int | float) else v for n, v in premises.items()}
    try:
        found = run(**taken, **({STORE: store} if reads else {}))
    except (ArithmeticError, IndexError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        words = ", ".join(f"{name} {said(premises[name])}" for name in known if premises[name] != known[name].value)
        if isinstance(error, BadValue) or not words:
            raise
        raise BadValue(f"claim {one.id} can't be tested with {words}: {error}") from error
    return Verdict(**vars(found), card=one, premises=premises)


def judge_all(cards: Mapping[str, Card] | None = None) -> dict[str, Verdict]:
    """Every card's verdict, by id."""
    return {name: judge(one) for name, one in (cards or load_cards()).items()}


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _experiment(name: str) -> Any:
    import lora_course.claims.experiments  # noqa: F401  # registers them; it reads much that a card alone doesn't need

    return EXPERIMENTS.get(name)


# ---- reading a card


def card_from(text: str, name: str = "this card") -> Card:
    """A card from YAML. Raises: BadValue with the one thing to fix."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadValue(f"{name} isn't valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BadValue(f"{name} isn't a card: write one line 'field: value' for each of {listed(FIELDS)}")
    _match(name, "field", values, FIELDS, f"a card has {listed(FIELDS)}")
    if not isinstance(values["premises"], dict):
        raise BadValue(f"write the premises of {name} as 'name: {{value: ..., means: ...}}', one a line")
    premises = tuple(_premise(key, value, name) for key, value in values["premises"].items())
    margin = values["margin"] and _premise("margin", values["margin"], name)
    own = {key: str(values[key]).strip() for key in FIELDS if key not in ("premises", "margin")}
    found = Card(**own, premises=premises, margin=margin)
    if not _experiment(found.experiment):
        close = nearest(found.experiment, EXPERIMENTS)
        raise BadValue(f"{name} has an unknown experiment '{found.experiment}'; nearest: {close}")
    why = f"the experiment {found.experiment} needs it"
    _match(name, "premise", found.all_premises, wanted(found.experiment), why)
    return found


def _match(name: str, what: str, stated: Collection[str], asked: Collection[str], why: str) -> None:
    """Raises: BadValue for the first name that is missing or unknown."""
    for missing in (one for one in asked if one not in stated):
        raise BadValue(f"{name} lacks the {what} '{missing}': {why}")
    for unknown in (one for one in stated if one not in asked):
        raise BadValue(f"{name} has an unknown {what} '{unknown}'; nearest: {nearest(str(unknown), asked)}")


def _premise(key: str, values: Any, name: str) -> Premise:
    if not isinstance(values, dict) or not {"value", "means"} <= values.keys() <= {"value", "means", "try"}:
        raise BadValue(
            f"write the premise '{key}' of {name} as {{value: ..., means: ..., try: [...]}}; try is optional"
        )
    value = values["value"]
    single = value if isinstance(value, list) else [value]
    if not single or not all(isinstance(one, bool | int | float | str) for one in single):
        raise BadValue(f"the premise '{key}' of {name} is {value!r}; use a number, a word, yes or no, or a list")
    return Premise(key, value, str(values["means"]), tuple(values.get("try") or ()))


def _taken(one: Card, name: str, value: Any) -> Value:
    """A value for a premise, in the form of the card's own: a list if that is one, a number if that is one."""
    own, what = one.all_premises[name].value, f"the premise '{name}' of claim {one.id}"
    if not isinstance(own, list):
        if isinstance(value, list | tuple):
            raise BadValue(f"{what} is a single value, such as {said(own)}")
        return _like(own, value, what)
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if not parts:
        raise BadValue(f"{what} needs at least one value")
    return [_like(own[0], part, what) for part in parts]


def _like(example: Any, value: Any, what: str) -> Any:
    """A value of the example's kind; text is parsed."""
    if isinstance(example, str):
        if isinstance(value, str) and value.strip():
            return value.strip()
        raise BadValue(f"{what} is a word, such as {example}, not {value!r}")
    text = str(value).strip().lower()
    if isinstance(example, bool):
        if text in ("true", "yes", "false", "no"):
            return text in ("true", "yes")
        raise BadValue(f"{what} is yes or no, not {value!r}")
    try:
        number = float(text)
    except ValueError:
        raise BadValue(f"{what} is a number, such as {example:g}, not {value!r}") from None
    return int(number) if isinstance(example, int) and number == number // 1 else number

"""Our own data-to-text set: places to eat that do not exist, in E2E NLG's slots, said in several ways by a grammar.

    name[Juniper House], food[Italian], area[riverside]
        Juniper House is a place by the river serving Italian food.
        At the riverside you will find Juniper House. It offers Italian cuisine.

A sentence has an opening, built around the kind of place (its adjectives before it, `head`; where it is, `location`;
what follows, `tail`), and then whatever has not been said yet. Every slot is said exactly once. The words of each slot
are in `wordings.py`.

What is said of a place apart from its name and its neighbour is its *profile*. The profiles of validation and test
are not met in training, nor those of one in the other. All draws come from `random()` of generators seeded by strings,
which Python keeps the same between versions. `python -m lora_lab.training.restaurants` writes the two held-out splits
into data/restaurants, to be read; what a task holds is made when it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

from lora_lab.training.meanings import SLOTS, Meaning, meaning_of
from lora_lab.training.wordings import (
    ADJECTIVES,
    LANDMARKS,
    NAMES,
    NEAR,
    NOUNS,
    PREDICATES,
    SERVING,
    VALUES,
    WHERE,
    WITH,
    Words,
)

SIZES = {"train": 1500, "validation": 100, "test": 200}  # meanings
REFERENCES = (3, 5)  # sentences for each, from and to
_HELD_OUT = {"test": 0.16, "validation": 0.24}  # a profile's own random number below which it belongs there
T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """A meaning and the sentences that say it."""

    meaning: Meaning
    references: tuple[str, ...]

    def line(self) -> str:
        """The example as a line of JSON."""
        return json.dumps({"meaning": str(self.meaning), "references": self.references}, ensure_ascii=False)


def make(split: str) -> list[Example]:
    """The examples of "train", "validation" or "test": the same on every machine."""
    rng, examples, known = Random(f"restaurants {split}"), list[Example](), set[Meaning]()
    while len(examples) < SIZES[split]:
        meaning = _meaning(rng)
        if meaning not in known and _split_of(meaning) == split:
            known.add(meaning)
            examples.append(Example(meaning, _references(meaning, rng)))
    return examples


def profile(meaning: Meaning) -> tuple[tuple[str, str], ...]:
    """What is said of a place besides its name and which neighbour it has."""
    return tuple((slot, value if slot != "near" else "") for slot, value in meaning.slots if slot != "name")


def _split_of(meaning: Meaning) -> str:
    number = Random(f"profile {profile(meaning)}").random()
    return next((split for split, below in _HELD_OUT.items() if number < below), "train")


def _meaning(rng: Random) -> Meaning:
    """Three to eight slots; a name is always among them."""
    values = {"name": pick(NAMES, rng)}
    while len(values) < 3:
        values = {"name": values["name"]}
        for slot in SLOTS[1:]:
            if rng.random() < (0.75 if slot == "eatType" else 0.55):
                values[slot] = pick(LANDMARKS if slot == "near" else VALUES[slot], rng)
    return meaning_of(values)


def _references(meaning: Meaning, rng: Random) -> tuple[str, ...]:
    least, most = REFERENCES
    wanted, found = least + int(rng.random() * (most - least + 1)), list[str]()
    while len(found) < wanted:
        text = say(meaning, rng)
        if text not in found:
            found.append(text)
    return tuple(found)


# ---- from a meaning to words


def say(meaning: Meaning, rng: Random) -> str:
    """One way to say a meaning: each slot once, in one to four sentences."""
    return _Speaker(meaning, rng).text()


class _Speaker:
    """The parts of the opening, and the slots that are left for the sentences after it."""

    def __init__(self, meaning: Meaning, rng: Random) -> None:
        self.meaning, self.rng = meaning, rng
        self.left = [slot for slot in SLOTS if slot in meaning and slot not in ("name", "eatType")]
        self.noun = meaning.get("eatType") or pick(NOUNS, rng)

    def text(self) -> str:
        """The opening and the rest."""
        before = len(self.left)
        opening = pick(_OPENINGS, self.rng)(self)
        if "eatType" not in self.meaning and len(self.left) == before:  # "Damson is a place" says nothing
            opening = f"{self.meaning['name']} {listed(self.statements(2))}"
        sentences = [opening, *self.rest()]
        return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)

    def head(self) -> str:
        """ "an inexpensive Italian pub": at most two adjectives, and the food's name among them or not."""
        words = [word for slot in ("familyFriendly", "customer rating", "priceRange") for word in self.adjective(slot)]
        if "food" in self.left and self.rng.random() < 0.35:
            words.append(self.take("food", ADJECTIVES))
        words.append(self.noun)
        return f"{'an' if words[0][0] in 'aeiouAEIOU' else 'a'} {' '.join(words)}"

    def adjective(self, slot: str) -> list[str]:
        """A slot as an adjective: half the time, where it is left and has one."""
        has_one = slot in self.left and self.meaning[slot] in ADJECTIVES.get(slot, {})
        return [self.take(slot, ADJECTIVES)] if has_one and self.rng.random() < 0.5 else []

    def location(self) -> str:
        """ "in the city centre near Tilney Park", or as much of it as there is, or nothing."""
        parts = []
        if "area" in self.left:
            parts.append(self.take("area", WHERE))
        if "near" in self.left:
            self.left.remove("near")
            parts.append(f"{pick(NEAR, self.rng)} {self.meaning['near']}")
        return " ".join(parts if self.rng.random() < 0.5 else reversed(parts))

    def tail(self) -> str:
        """ "serving Italian food with moderate prices and a low customer rating", or parts of it."""
        parts = []
        if "food" in self.left and self.rng.random() < 0.7:
            parts.append(self.take("food", SERVING))
        having = [
            self.take(slot, WITH) for slot in ("priceRange", "customer rating") if slot in self.left and self.chance()
        ]
        if having:
            parts.append(f"with {' and '.join(having)}")
        return " ".join(parts)

    def rest(self) -> Iterator[str]:
        """Sentences of one to three statements each, until nothing is left."""
        statements = self.statements(len(self.left))
        subject = "it" if self.chance() else f"{pick(('the', 'this'), self.rng)} {self.noun}"
        while statements:
            count = 1 + int(self.rng.random() * min(3, len(statements)))
            yield f"{subject} {listed(statements[:count])}"
            statements, subject = statements[count:], "it"

    def statements(self, count: int) -> list[str]:
        """So many of the slots that are left as predicates: "has a low customer rating"."""
        chosen = shuffled(self.left, self.rng)[:count]
        return [self.predicate(slot) for slot in chosen]

    def predicate(self, slot: str) -> str:
        """A slot as a predicate."""
        if slot == "area":
            return f"is {self.take('area', WHERE)}"
        if slot == "near":
            self.left.remove("near")
            return f"is {pick(NEAR, self.rng)} {self.meaning['near']}"
        return self.take(slot, PREDICATES)

    def take(self, slot: str, table: Words) -> str:
        """Words for a slot's value, which is then said."""
        self.left.remove(slot)
        return pick(table[slot][self.meaning[slot]], self.rng)

    def chance(self) -> bool:
        """Half the time."""
        return self.rng.random() < 0.5


def _is(s: _Speaker) -> str:
    return joined(s.meaning["name"], "is", s.head(), s.location(), s.tail())


def _there_is(s: _Speaker) -> str:
    return joined("there is", s.head(), "called", s.meaning["name"], s.location(), s.tail())


def _where_first(s: _Speaker) -> str:
    where = s.location()
    if not where:
        return _is(s)
    return joined(f"{where} you will find", f"{s.meaning['name']},", s.head(), s.tail())


def _between_commas(s: _Speaker) -> str:
    what = joined(s.head(), s.location())
    if not s.left:
        return f"{s.meaning['name']} is {what}"
    return f"{s.meaning['name']}, {what}, {listed(s.statements(1 + int(s.rng.random() * 2)))}"


def _try(s: _Speaker) -> str:
    return f"{joined('for', s.head(), s.location(), s.tail())}, try {s.meaning['name']}"


def _statements(s: _Speaker) -> str:
    if "eatType" in s.meaning or not s.left:
        return _is(s)
    return f"{s.meaning['name']} {listed(s.statements(1 + int(s.rng.random() * 3)))}"


_OPENINGS: Sequence[Callable[[_Speaker], str]] = (
    _is, _is, _there_is, _where_first, _between_commas, _try, _statements,
)  # fmt: skip


# ---- small words


def pick(options: Sequence[T], rng: Random) -> T:
    """One of the options, by one call of `random()`."""
    return options[int(rng.random() * len(options))]


def shuffled(items: Sequence[T], rng: Random) -> list[T]:
    """In an order drawn by `random()` alone."""
    return [item for _, item in sorted(((rng.random(), item) for item in items), key=lambda pair: pair[0])]


def joined(*parts: str) -> str:
    """The parts that are not empty, with spaces between them."""
    return " ".join(part for part in parts if part)


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def write(folder: Path) -> None:
    """Write the held-out splits, a line of JSON an example."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("validation", "test"):
        lines = [example.line() for example in make(split)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[2] / "data" / "restaurants")

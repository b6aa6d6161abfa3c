"""What a sentence is to say: a meaning representation in the slots of the E2E NLG challenge.

    name[Alimentum], eatType[pub], area[city centre], familyFriendly[no]

Source of slots and notation: Novikova, Dušek and Rieser 2017, "The E2E Dataset: New Challenges For End-to-End
Generation". No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lora_lab.errors import BadValue, nearest

SLOTS = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
_PART = re.compile(r"([^\[\],]+)\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Meaning:
    """Slots with their values, in the order in which they were given.

    Raises: BadValue for an unknown slot, one that stands twice, an empty value, brackets in a value, or no name.
    """

    slots: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for slot, value in self.slots:
            if slot not in SLOTS:
                raise BadValue(f"a meaning has no slot '{slot}'; nearest: {nearest(slot, SLOTS)}")
            if not value or value != value.strip() or set(value) & set("[]\n"):
                raise BadValue(f"the slot {slot} needs a value on one line without brackets, not {value!r}")
        names = [slot for slot, _ in self.slots]
        for slot in names:
            if names.count(slot) > 1:
                raise BadValue(f"the slot {slot} stands {names.count(slot)} times; give it once")
        if "name" not in names:
            raise BadValue(f"the meaning '{self}' names no place; add name[...]")

    def __str__(self) -> str:
        return ", ".join(f"{slot}[{value}]" for slot, value in self.slots)

    def __getitem__(self, slot: str) -> str:
        return dict(self.slots)[slot]

    def __contains__(self, slot: str) -> bool:
        return slot in dict(self.slots)

    def __len__(self) -> int:
        return len(self.slots)

    def get(self, slot: str) -> str | None:
        """The value of a slot, None where the meaning does not say."""
        return dict(self.slots).get(slot)


def meaning_of(values: Mapping[str, str]) -> Meaning:
    """A meaning with its slots in E2E's order. Raises: BadValue, as `Meaning`."""
    known = [(slot, values[slot]) for slot in SLOTS if slot in values]
    return Meaning((*known, *((slot, value) for slot, value in values.items() if slot not in SLOTS)))


def parse(text: str) -> Meaning:
    """The meaning that E2E's text form writes: `str(parse(text)) == text` up to spaces around the commas.

    Raises: BadValue for text that is not slot[value], slot[value], ...; and as `Meaning`.
    """
    slots: list[tuple[str, str]] = []
    rest = text.strip()
    while rest:
        found = _PART.match(rest)
        if not found:
            raise BadValue(f"'{text.strip()}' is no meaning: '{rest}' is not of the form slot[value], slot[value]")
        slots.append((found[1].strip(), found[2].strip()))
        rest = _after_comma(rest[found.end() :], text)
    return Meaning(tuple(slots))


def _after_comma(rest: str, text: str) -> str:
    """What follows the comma between two slots; "" at the end."""
    rest = rest.strip()
    if rest and not (rest.startswith(",") and rest[1:].strip()):
        raise BadValue(f"'{text.strip()}' is no meaning: one comma and a slot must stand where '{rest}' does")
    return rest[1:].strip()

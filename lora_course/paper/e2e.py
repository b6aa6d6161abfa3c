"""The E2E NLG challenge's data from a folder: meanings with one reference a line, in either form.

    trainset.csv, devset.csv, testset_w_refs.csv   columns mr and ref: name[Cotto], area[riverside]
    train.txt, valid.txt, test.txt                 name : Cotto | area : riverside||Cotto is by the riverside .

Without a training file a folder can be scored on, not trained on. Texts stay as they are, with the spaces that the
makers of the .txt files put around punctuation. Source: Novikova, Dušek and Rieser 2017, "The E2E Dataset: New
Challenges For End-to-End Generation" (CC BY-SA 4.0); Hu et al. 2021 trained on the .txt form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_course.paper import table
from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.training.tasks import Example
from lora_lab.training.text_files import csv_rows, text_of

SLOTS = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
CALLED = {"Type": "eatType", "price": "priceRange", "family friendly": "familyFriendly"}  # in the .txt files
FILES = {
    "train": ("train.txt", "trainset.csv", "train.csv"),
    "validation": ("valid.txt", "devset.csv", "validation.csv"),
    "test": ("test.txt", "testset_w_refs.csv", "test.csv"),
}
COLUMNS = (("mr", "ref"), ("meaning_representation", "human_reference"))  # the challenge's, the hub's
PRINTED = {"bleu": "BLEU", "nist": "NIST", "meteor": "MET", "rouge_l": "ROUGE-L", "cider": "CIDEr"}  # in table 3
_PART = re.compile(r"\s*([^\[\],]+)\[([^\[\]]+)\]\s*(?:,|$)")


@dataclass(frozen=True)
class Meaning:
    """What a sentence should say: slots with their values, in the order in which they were given.

    Raises: BadValue for an unknown slot, one given twice, an empty value, brackets in a value, or no name.
    """

    slots: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        names = [slot for slot, _ in self.slots]
        for slot, value in self.slots:
            if slot not in SLOTS:
                raise BadValue(f"a meaning has no slot '{slot}'; nearest: {nearest(slot, SLOTS)}")
            if not value or value != value.strip() or set(value) & set("[]\n"):
                raise BadValue(f"the slot {slot} needs a value on one line without brackets, not {value!r}")
            if names.count(slot) > 1:
                raise BadValue(f"the slot {slot} is given {names.count(slot)} times; give it once")
        if "name" not in names:
            raise BadValue(f"the meaning '{self}' names no place; add name[...]")

    def __str__(self) -> str:
        return ", ".join(f"{slot}[{value}]" for slot, value in self.slots)


def meaning_of(values: Mapping[str, str]) -> Meaning:
    """A meaning with its slots in E2E's order. Raises: BadValue, as `Meaning`."""
    known = [(slot, values[slot]) for slot in SLOTS if slot in values]
    return Meaning((*known, *((slot, value) for slot, value in values.items() if slot not in SLOTS)))


def parse(text: str) -> Meaning:
    """The meaning that E2E's text form writes: `str(parse(text)) == text` up to spaces around the commas.

    Raises: BadValue for text that isn't slot[value], slot[value], ...; and as `Meaning`.
    """
    slots: list[tuple[str, str]] = []
    place, comma = 0, False
    while place < len(text.strip()) or comma:
        found = _PART.match(text.strip(), place)
        if not found:
            rest = text.strip()[place:]
            raise BadValue(f"'{text.strip()}' is not a meaning: '{rest}' is not of the form slot[value], slot[value]")
        slots.append((found[1].strip(), found[2].strip()))
        place, comma = found.end(), found[0].endswith(",")
    return Meaning(tuple(slots))


def _piped(text: str) -> Meaning:
    """A meaning in the .txt files' form; "£ 20 - 25" is E2E's "£20-25"."""
    parts = [part.partition(":") for part in text.split("|")]
    slots = {CALLED.get(slot.strip(), slot.strip()): value.strip() for slot, _, value in parts}
    if len(slots) < len(parts):
        raise BadValue(f"'{text.strip()}' is not a meaning: a slot is given twice")
    return meaning_of({slot: value.replace("£ ", "£").replace(" - ", "-") for slot, value in slots.items()})


def read_folder(folder: Path) -> dict[str, list[Example]]:
    """The examples of each split; [] for training if there is no such file. Raises: NotFound, and as `read_file`."""
    splits = {}
    for split, names in FILES.items():
        files = [folder / name for name in names if (folder / name).is_file()]
        if not files and split != "train":
            raise NotFound(f"the folder {folder} holds none of {', '.join(names)}, which {split} is read from")
        splits[split] = read_file(files[0]) if files else []
    return splits


def read_file(file: Path) -> list[Example]:
    """The examples of a .txt or .csv file: lines of one meaning are one example, its references in their order.

    Raises: BadValue for an empty file and, naming the line, for a line that is not an example.
    """
    read, lines = (parse, _rows(file)) if file.suffix == ".csv" else (_piped, _lines(file))
    groups: dict[Meaning, dict[str, None]] = {}
    for number, text, reference in lines:
        try:
            groups.setdefault(read(text), {})[reference] = None
        except BadValue as error:
            raise BadValue(f"{file}, line {number}: {error}") from error
    if not groups:
        raise BadValue(f"{file} is empty: it holds no meaning with a sentence that says it")
    return [Example(meaning, tuple(references)) for meaning, references in groups.items()]


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if line.strip():
            meaning, bars, reference = line.partition("||")
            if not (bars and reference.strip()):
                raise BadValue(f"{file}, line {number}: there is no ||reference after the meaning")
            yield number, meaning, reference.strip()


def _rows(file: Path) -> Iterable[tuple[int, str, str]]:
    names, rows = csv_rows(file)
    columns = next((pair for pair in COLUMNS if set(pair) <= set(names)), None)
    if columns is None:
        raise BadValue(f"{file} needs the columns mr and ref; it has {', '.join(names) or 'none'}")
    for number, row in rows:
        meaning, reference = ((row.get(name) or "").strip() for name in columns)
        if not reference:
            raise BadValue(f"{file}, line {number}: the column {columns[1]} is empty")
        yield number, meaning, reference


def published() -> str:
    """The paper's own scores as a table, METEOR and CIDEr among them, which are not computed here."""
    lines = [f"{'published for GPT-2 medium on E2E':34}{''.join(f'{name:>9}' for name in PRINTED)}"]
    for row in table("table3").records():
        if row["model"] == "GPT-2 M":
            scores = "".join(f"{row[column]:9g}" for column in PRINTED.values())
            lines.append(f"{row['method']}, {row['trainable']}".ljust(34) + scores)
    return "\n".join([*lines, "(Hu et al. 2021, table 3, by E2E's own script)"])

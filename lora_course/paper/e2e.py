"""Read the E2E NLG challenge's data from a folder, in either of its formats. Each line has a meaning and a reference.

    trainset.csv, devset.csv, testset_w_refs.csv   columns mr and ref: name[Cotto], area[riverside]
    train.txt, valid.txt, test.txt                 name : Cotto | area : riverside||Cotto is by the riverside .

A folder without a training file can be used for scoring but not for training. Texts are kept unchanged; the .txt files
come with spaces around punctuation. Source: Novikova, Dušek and Rieser 2017, "The E2E Dataset: New
Challenges For End-to-End Generation" (CC BY-SA 4.0); Hu et al. 2021 trained on the .txt format.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from lora_lab.errors import BadValue, NotFound, nearest
from lora_lab.training.tasks import Example, Task, generation
from lora_lab.training.text_files import csv_rows, text_of

SLOTS = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
CALLED = {"Type": "eatType", "price": "priceRange", "family friendly": "familyFriendly"}  # slots in the .txt files
FILES = {
    "train": ("train.txt", "trainset.csv", "train.csv"),
    "validation": ("valid.txt", "devset.csv", "validation.csv"),
    "test": ("test.txt", "testset_w_refs.csv", "test.csv"),
}
PRINTED = {"bleu": "BLEU", "nist": "NIST", "meteor": "MET", "rouge_l": "ROUGE-L", "cider": "CIDEr"}  # in table 3
_PART = re.compile(r"\s*([^\[\],]+)\[([^\[\]]+)\]\s*(?:,|$)")


def parse(text: str) -> dict[str, str]:
    """Parse a meaning representation, which a sentence should express: "slot[value], ..." becomes {slot: value}.

    Raises: BadValue for any other text, an unknown or repeated slot, an empty value, or a missing name.
    """
    text = text.strip()
    rest = _PART.sub("", text).strip()
    if rest or text.endswith(","):
        raise BadValue(f"'{text}' is not a meaning representation: '{rest}' is not of the form slot[value]")
    return _checked([(slot.strip(), value.strip()) for slot, value in _PART.findall(text)])


def _parse_txt(text: str) -> dict[str, str]:
    """Parse a meaning from a .txt file, with its slots in E2E's order; "£ 20 - 25" becomes E2E's "£20-25"."""
    parts = [part.partition(":") for part in text.replace("£ ", "£").replace(" - ", "-").split("|")]
    meaning = _checked([(CALLED.get(slot.strip(), slot.strip()), value.strip()) for slot, _, value in parts])
    return {slot: meaning[slot] for slot in SLOTS if slot in meaning}


def _checked(slots: list[tuple[str, str]]) -> dict[str, str]:
    names = [slot for slot, _ in slots]
    for slot, value in slots:
        if slot not in SLOTS:
            raise BadValue(f"a meaning representation has no slot '{slot}'; nearest: {nearest(slot, SLOTS)}")
        if not value or names.count(slot) > 1:
            raise BadValue(f"'{written(slots)}' needs exactly one value for the slot {slot}")
    if "name" not in names:
        raise BadValue(f"the meaning '{written(slots)}' has no name; add name[...]")
    return dict(slots)


def written(slots: Iterable[tuple[str, str]]) -> str:
    """Write a meaning in E2E's format, which `parse` reads."""
    return ", ".join(f"{slot}[{value}]" for slot, value in slots)


def read(name: str, max_length: int | None = None) -> Task:
    """Load a folder as a task. Raises: NotFound for a missing validation or test file; also see `read_file`."""
    folder, splits = Path(name).expanduser(), {}
    for split, names in FILES.items():
        files = [folder / file for file in names if (folder / file).is_file()]
        if not files and split != "train":
            raise NotFound(f"the folder {folder} has no {split} file: add one of {', '.join(names)}")
        splits[split] = read_file(files[0]) if files else []
    return generation(name, splits, max_length)


def read_file(file: Path) -> list[Example]:
    """Read a .txt or .csv file, grouping the references of each meaning. Raises: BadValue for an invalid line."""
    if file.suffix == ".csv":
        names, rows = csv_rows(file)
        if not {"mr", "ref"} <= set(names):
            raise BadValue(f"{file} needs the columns mr and ref; it has {', '.join(names) or 'none'}")
        read, missing = parse, "the column ref is empty"
        lines = [(number, row.get("mr") or "", row.get("ref") or "") for number, row in rows]
    else:
        read, missing = _parse_txt, "no ||reference follows the meaning"
        numbered = enumerate(text_of(file).split("\n"), 1)
        lines = [(number, *line.partition("||")[::2]) for number, line in numbered if line.strip()]
    groups: dict[str, dict[str, None]] = {}
    for number, text, reference in lines:
        try:
            if not reference.strip():
                raise BadValue(missing)
            groups.setdefault(written(read(text).items()), {})[reference.strip()] = None
        except BadValue as error:
            raise BadValue(f"{file}, {'row' if file.suffix == '.csv' else 'line'} {number}: {error}") from error
    if not groups:
        raise BadValue(f"{file} is empty: it needs meanings with references")
    return [Example(meaning, tuple(references)) for meaning, references in groups.items()]

"""The E2E NLG challenge's own data: from a folder, or, when the hub may be asked, by a hub id.

A folder holds files of meanings with one reference a line, in either form that they are passed around in:

    trainset.csv, devset.csv, testset_w_refs.csv   columns mr and ref: name[Cotto], area[riverside]
    train.txt, valid.txt, test.txt                 name : Cotto | area : riverside||Cotto is by the riverside .

Training may be missing: such a folder can be scored on, not trained on. Texts stay as they are, so those of the .txt
files keep the spaces that their makers put around punctuation. Source: Novikova, Dušek and Rieser 2017 (CC BY-SA 4.0);
the .txt form is the one in which Hu et al. 2021 trained on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_course.paper.meanings import Meaning, meaning_of, parse
from lora_lab.errors import BadValue, Failed, NotFound
from lora_lab.training.tasks import Example
from lora_lab.training.text_files import csv_rows, text_of

FILES = {
    "train": ("train.txt", "trainset.csv", "train.csv"),
    "validation": ("valid.txt", "devset.csv", "validation.csv"),
    "test": ("test.txt", "testset_w_refs.csv", "test.csv"),
}
_SLOT = {"Type": "eatType", "price": "priceRange", "family friendly": "familyFriendly"}  # as the .txt files call them
_CONVERTED = "refs/convert/parquet"  # where the hub keeps every data set as tables, so that no code has to run
_COLUMNS = (("mr", "ref"), ("meaning_representation", "human_reference"))


def read_folder(folder: Path) -> dict[str, list[Example]]:
    """The examples of each split; [] for training where the folder has no such file.

    Raises: NotFound for a folder without a validation or a test file; BadValue for a line that is no example.
    """
    return {split: _read_split(folder, split) for split in FILES}


def read_hub(name: str, *, download: bool = False) -> dict[str, list[Example]]:
    """The same from the hub, such as "tuetschek/e2e_nlg"; without `download` only what this machine has of it.

    Raises: NotFound when it is not on this machine; Failed when the hub does not give it; BadValue as `read_folder`.
    """
    import pandas as pd

    files = {split: _hub_file(name, split, download) for split in FILES}
    try:
        tables = {split: pd.read_parquet(file) for split, file in files.items()}
    except ImportError as error:
        raise BadValue(f"the hub's tables need pyarrow to be read: pip install 'lora-lab[hub]' ({error})") from error
    return {
        split: _grouped(_rows(list(table.columns), enumerate(table.to_dict("records"), 1), files[split]))
        for split, table in tables.items()
    }


def read_file(file: Path) -> list[Example]:
    """The examples of one .txt or .csv file, in the file's order.

    Raises: BadValue for a file that holds none, and, naming the line, for one that is none.
    """
    examples = _grouped(_rows(*csv_rows(file), str(file)) if file.suffix == ".csv" else _lines(file))
    if not examples:
        raise BadValue(f"{file} is empty: it holds no meaning and what it is in words")
    return examples


def _read_split(folder: Path, split: str) -> list[Example]:
    found = next((folder / name for name in FILES[split] if (folder / name).is_file()), None)
    if found is None and split != "train":
        raise NotFound(f"the folder {folder} holds none of {', '.join(FILES[split])}, which {split} is read from")
    return read_file(found) if found else []


def _lines(file: Path) -> Iterator[tuple[Meaning, str]]:
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if line.strip():
            meaning, bars, reference = line.partition("||")
            if not (bars and reference.strip()):
                raise BadValue(f"{file}, line {number}: there is no ||reference after the meaning")
            yield _checked(_piped, meaning, str(file), number), reference.strip()


def _rows(
    names: Sequence[str], rows: Iterable[tuple[int, Mapping[Any, Any]]], file: str
) -> Iterator[tuple[Meaning, str]]:
    """Of a file with columns, or of a table of the hub's."""
    columns = next((both for both in _COLUMNS if set(both) <= set(names)), None)
    if columns is None:
        raise BadValue(f"{file} needs the columns mr and ref; it has {', '.join(map(str, names)) or 'none'}")
    for number, row in rows:
        meaning, reference = ((row.get(name) or "").strip() for name in columns)
        if not reference:
            raise BadValue(f"{file}, line {number}: the column {columns[1]} is empty")
        yield _checked(parse, meaning, file, number), reference


def _piped(text: str) -> Meaning:
    """A meaning in the .txt files' form; "£ 20 - 25" is E2E's "£20-25"."""
    parts = [part.partition(":") for part in text.split("|")]
    slots = {_SLOT.get(slot.strip(), slot.strip()): value.strip() for slot, _, value in parts}
    if len(slots) < len(parts):
        raise BadValue(f"'{text.strip()}' is no meaning: a slot stands in it twice")
    return meaning_of({slot: value.replace("£ ", "£").replace(" - ", "-") for slot, value in slots.items()})


def _checked(read: Callable[[str], Meaning], text: str, file: str, number: int) -> Meaning:
    try:
        return read(text)
    except BadValue as error:
        raise BadValue(f"{file}, line {number}: {error}") from error


def _grouped(pairs: Iterable[tuple[Meaning, str]]) -> list[Example]:
    """Pairs of one meaning as one example, its different references in their order."""
    groups: dict[Meaning, dict[str, None]] = {}
    for meaning, reference in pairs:
        groups.setdefault(meaning, {})[reference] = None
    return [Example(meaning, tuple(references)) for meaning, references in groups.items()]


def _hub_file(name: str, split: str, download: bool) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(
            name, f"default/{split}/0000.parquet", repo_type="dataset", revision=_CONVERTED,
            local_files_only=not download,
        )  # fmt: skip
    except Exception as error:  # the hub's errors, requests' and OSError have no common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if download:
            raise Failed(f"the hub did not give '{name}': {reason}") from error
        raise NotFound(
            f"there is no data set '{name}' on this machine; give a folder, or allow the hub to be asked (--download)"
        ) from error

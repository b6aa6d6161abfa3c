"""The E2E NLG challenge's own data: from a folder, or by a hub id if the hub may be asked.

A folder holds files of meanings with one reference a line, in either form:

    trainset.csv, devset.csv, testset_w_refs.csv   columns mr and ref: name[Cotto], area[riverside]
    train.txt, valid.txt, test.txt                 name : Cotto | area : riverside||Cotto is by the riverside .

Without a training file a folder can be scored on, not trained on. Texts stay as they are, with the spaces that the
makers of the .txt files put around punctuation. Source: Novikova, Dušek and Rieser 2017 (CC BY-SA 4.0); the .txt form
is the one in which Hu et al. 2021 trained on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lora_course.paper import table
from lora_course.paper.meanings import Meaning, meaning_of, parse
from lora_lab.errors import BadValue, Failed, NotFound
from lora_lab.training.tasks import Example
from lora_lab.training.text_files import csv_rows, text_of

FILES = {
    "train": ("train.txt", "trainset.csv", "train.csv"),
    "validation": ("valid.txt", "devset.csv", "validation.csv"),
    "test": ("test.txt", "testset_w_refs.csv", "test.csv"),
}
PRINTED = {"bleu": "BLEU", "nist": "NIST", "meteor": "MET", "rouge_l": "ROUGE-L", "cider": "CIDEr"}  # in table 3
SLOTS = {"Type": "eatType", "price": "priceRange", "family friendly": "familyFriendly"}  # as the .txt files call them


def read_folder(folder: Path) -> dict[str, list[Example]]:
    """The examples of each split; [] for training if there is no such file. Raises: NotFound, and as `read_file`."""
    splits = {}
    for split, names in FILES.items():
        files = [folder / name for name in names if (folder / name).is_file()]
        if not files and split != "train":
            raise NotFound(f"the folder {folder} holds none of {', '.join(names)}, which {split} is read from")
        splits[split] = read_file(files[0]) if files else []
    return splits


def read_hub(name: str, *, download: bool = False) -> dict[str, list[Example]]:
    """The same from the hub, such as "tuetschek/e2e_nlg"; without `download` only what this machine has of it.

    Raises: NotFound if it is not on this machine; Failed if the hub does not give it; BadValue as `read_file`.
    """
    import pandas as pd

    splits = {}
    for split in FILES:
        file = _hub_file(name, split, download)
        try:
            table = pd.read_parquet(file)
        except ImportError as error:
            raise BadValue(
                f"the hub's tables need pyarrow to be read: pip install 'lora-lab[hub]' ({error})"
            ) from error
        splits[split] = _grouped(_rows(list(table.columns), enumerate(table.to_dict("records"), 1), file), file)
    return splits


def read_file(file: Path) -> list[Example]:
    """The examples of one .txt or .csv file, in the file's order.

    Raises: BadValue for an empty file and, naming the line, for a line that is no example.
    """
    return _grouped(_rows(*csv_rows(file), file) if file.suffix == ".csv" else _lines(file), file)


Pair = tuple[int, Any, str, str]  # a line's number, how its meaning is read, the meaning, the reference


def _lines(file: Path) -> Iterator[Pair]:
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if line.strip():
            meaning, bars, reference = line.partition("||")
            if not (bars and reference.strip()):
                raise BadValue(f"{file}, line {number}: there is no ||reference after the meaning")
            yield number, _piped, meaning, reference.strip()


def _rows(names: Sequence[str], rows: Iterable[tuple[int, Any]], file: Path | str) -> Iterator[Pair]:
    """Of a file with columns, or of a table of the hub's."""
    for columns in (("mr", "ref"), ("meaning_representation", "human_reference")):
        if set(columns) <= set(names):
            break
    else:
        raise BadValue(f"{file} needs the columns mr and ref; it has {', '.join(map(str, names)) or 'none'}")
    for number, row in rows:
        meaning, reference = ((row.get(name) or "").strip() for name in columns)
        if not reference:
            raise BadValue(f"{file}, line {number}: the column {columns[1]} is empty")
        yield number, parse, meaning, reference


def _piped(text: str) -> Meaning:
    """A meaning in the .txt files' form; "£ 20 - 25" is E2E's "£20-25"."""
    parts = [part.partition(":") for part in text.split("|")]
    slots = {SLOTS.get(slot.strip(), slot.strip()): value.strip() for slot, _, value in parts}
    if len(slots) < len(parts):
        raise BadValue(f"'{text.strip()}' is no meaning: a slot stands in it twice")
    return meaning_of({slot: value.replace("£ ", "£").replace(" - ", "-") for slot, value in slots.items()})


def _grouped(pairs: Iterable[Pair], file: Path | str) -> list[Example]:
    """Pairs of one meaning as one example, its different references in their order."""
    groups: dict[Meaning, dict[str, None]] = {}
    for number, read, text, reference in pairs:
        try:
            groups.setdefault(read(text), {})[reference] = None
        except BadValue as error:
            raise BadValue(f"{file}, line {number}: {error}") from error
    if not groups:
        raise BadValue(f"{file} is empty: it holds no meaning with a sentence that says it")
    return [Example(meaning, tuple(references)) for meaning, references in groups.items()]


def _hub_file(name: str, split: str, download: bool) -> str:
    """A split as parquet, which the hub keeps of every data set, so that no code has to run."""
    from huggingface_hub import hf_hub_download

    file, where = f"default/{split}/0000.parquet", "refs/convert/parquet"
    try:
        return hf_hub_download(name, file, repo_type="dataset", revision=where, local_files_only=not download)
    except Exception as error:  # the hub's errors, requests' and OSError have no common base
        if download:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Failed(f"the hub did not give '{name}': {reason}") from error
        raise NotFound(
            f"there is no data set '{name}' on this machine; give a folder, or allow the hub to be asked (--download)"
        ) from error


def published() -> str:
    """The paper's own scores as a table, METEOR and CIDEr among them, which are not computed here."""
    lines = [f"{'published for GPT-2 medium on E2E':34}{''.join(f'{name:>9}' for name in PRINTED)}"]
    for row in table("table3").records():
        if row["model"] == "GPT-2 M":
            scores = "".join(f"{row[column]:9g}" for column in PRINTED.values())
            lines.append(f"{row['method']}, {row['trainable']}".ljust(34) + scores)
    return "\n".join([*lines, "(Hu et al. 2021, table 3, by E2E's own script)"])

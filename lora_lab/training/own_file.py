"""A file of one's own: the labelled texts of a .csv or .jsonl with columns of any name, and whether it has changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pandas as pd

from lora_lab.errors import BadValue, Changed, NotFound
from lora_lab.training.text_files import csv_rows, json_rows

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".txt")


def fingerprint(task: str) -> str | None:
    """Sixteen hex digits of what a file of one's own holds now; None of a task that is no such file."""
    path = Path(task).expanduser()
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return None
    return sha256(path.read_bytes()).hexdigest()[:16]


def check_unchanged(task: str, then: str | None, now: str | None) -> None:
    """Raises: Changed where a run was made when the file held something else; the first records do not say what."""
    if then and now and then != now:
        raise Changed(f"{task} has changed since runs were made from it: give those of the new file another --out")


def labelled(path: Path, text: str, label: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows with columns text, label (as a number) and, where the file has it, split; and the labels' names in order.

    text, label    what these columns are called in the file
    Raises: NotFound for a column that is not there, BadValue for a file that holds no classes.
    """
    table = _table(path, text, label)
    for column in (text, label):
        if column not in table:
            raise NotFound(f"{path} has no column '{column}'; it has {', '.join(map(str, table.columns)) or 'nothing'}")
    table = table[table[text].notna() & table[label].notna()]
    names = table[label].astype(str).str.strip()
    if (names == "").any():
        raise BadValue(
            f"{path}: the column '{label}' is empty in {(names == '').sum()} rows; label them or take them out"
        )
    labels = sorted_labels(names)
    if len(labels) < 2:
        raise BadValue(f"{path}: the column '{label}' has {len(labels)} different labels; at least 2 are needed")
    number = {name: n for n, name in enumerate(labels)}
    rows = pd.DataFrame({"text": table[text].astype(str), "label": names.map(number)})
    return (rows.assign(split=table["split"]) if "split" in table else rows), labels


def sorted_labels(values: Iterable[str]) -> list[str]:
    """Different labels in order: as numbers where all are whole numbers (10 after 9), else alphabetically."""
    labels = set(values)
    return sorted(labels, key=int) if all(re.fullmatch(r"-?\d+", v) for v in labels) else sorted(labels)


def _table(path: Path, text: str, label: str) -> pd.DataFrame:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        return pd.DataFrame([row for _, row in json_rows(path, text, label)], dtype=object)  # so that 1 stays 1
    if path.suffix.lower() == ".csv":
        names, rows = csv_rows(path)
        return pd.DataFrame([row for _, row in rows], columns=names, dtype=object).fillna("")  # of a short row
    raise BadValue(f"{path} is no .csv, .jsonl or .txt file")

"""A file of one's own: the text of a .txt, or the labelled texts of a .csv or .jsonl with columns of any name."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pandas as pd

from lora_lab.errors import BadValue, Changed, NotFound

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
    table = _table(path)
    for column in (text, label):
        if column not in table:
            raise NotFound(f"{path} has no column '{column}'; it has {', '.join(map(str, table.columns))}")
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


def text_of(path: Path) -> str:
    """What a file says, without the mark that Windows puts before it. Raises: BadValue where it is not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except ValueError as error:
        raise BadValue(f"{path} is no text in UTF-8: save it as that, in Excel as 'CSV UTF-8'") from error


def _table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return pd.read_json(io.StringIO(text_of(path)), lines=True, dtype=False)
        if path.suffix.lower() == ".csv":
            _check_widths(path)
            return pd.read_csv(path, dtype=str, keep_default_na=False)
    except BadValue:
        raise
    except (ValueError, csv.Error) as error:
        raise BadValue(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error
    raise BadValue(f"{path} is no .csv, .jsonl or .txt file")


def _check_widths(path: Path) -> None:
    """Raises: BadValue for a row with more fields than the header, of whose first ones pandas may make an index."""
    csv.field_size_limit(2**31 - 1)  # a text may be long
    lines = csv.reader(io.StringIO(text_of(path)))
    rows = filter(None, lines)
    header = next(rows, [])
    for row in rows:
        if 1 < len(header) < len(row):  # with one field no comma divides the header: it is a column that is missing
            line = lines.line_num - sum(field.count("\n") for field in row)
            raise BadValue(
                f"{path}, line {line} has {len(row)} fields and the header {len(header)}: put a text with commas in "
                'quotes, "like, this", and end no line with a comma'
            )

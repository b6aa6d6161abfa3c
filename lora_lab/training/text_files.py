"""Read users' text, JSON Lines and CSV files. Error messages name the line, or the row of a CSV file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue
from lora_lab.lazy import pd

SPLITS = ("train", "validation", "test")


def text_of(path: Path, newline: str | None = None) -> str:
    """Read a UTF-8 file without its byte-order mark. `newline` is passed to `open`.

    Raises: BadValue if the file is not UTF-8 or cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except OSError as error:
        raise BadValue(f"{path} cannot be read: {error.strerror}; check its permissions and the disk") from error
    except ValueError as error:
        raise BadValue(f"{path} is not UTF-8 text: save it as UTF-8 (in Excel: 'CSV UTF-8')") from error


def check_splits(path: Path | str, given: Iterable[object]) -> None:
    """Check the values of `split` in a file. Raises: BadValue unless these values are exactly SPLITS."""
    found = {str(split) if split == split and split not in (None, "") else "nothing" for split in given}  # NaN != NaN
    if found != set(SPLITS):
        names, wanted = ", ".join(sorted(found)), ", ".join(SPLITS)
        raise BadValue(f"{path}: 'split' must contain each of {wanted} and nothing else; it has {names}")


def json_rows(path: Path, *names: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read JSON Lines and yield (line number, object) pairs. Only a line feed ends a line.

    names   The expected fields, for the error message.
    Raises: BadValue for a line that is not a JSON object.
    """
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
                if "\\ud" in line.lower():  # a lone surrogate is not text: no tokenizer accepts it
                    json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise BadValue(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                fields = ", ".join(f'"{name}": ...' for name in names)
                raise BadValue(f"{path}, line {number} is not an object such as {{{fields}}}")
            yield number, row


def csv_table(path: Path) -> pd.DataFrame:
    """Read a CSV file as a table of strings. Rows may lack their last columns. Empty rows are skipped, and spaces
    around column names are removed.

    Raises: BadValue for a file without a header, for two columns with the same name, or if pandas cannot read the file,
    because a quotation mark is never closed or a row is longer than the header.
    """
    text = text_of(path, newline="")  # keep line ends inside texts unchanged
    if not text.strip():
        raise BadValue(f"{path} cannot be read as csv: it is empty")
    try:  # header=None, because pandas would rename columns and cut long rows
        file = io.StringIO(text.lstrip())  # pandas takes the number of columns from the first line
        everything = pd.read_csv(file, header=None, dtype=str, na_filter=False, skip_blank_lines=False)
    except ValueError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ").replace(" line ", " row ")
        reason = reason.replace("EOF inside string starting at row", "a quotation mark is never closed, after row")
        fix = 'put commas between columns, and quote texts that have commas, "like, this"; remove commas at line ends'
        raise BadValue(f"{path} cannot be read as csv ({reason}): {fix}") from error
    header = everything.iloc[0].str.strip().tolist()
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise BadValue(f"{path} has {header.count(twice[0])} columns named '{twice[0]}': rename or remove all but one")
    filled = everything.apply(lambda column: column.str.strip() != "").any(axis=1)
    table = everything[filled][1:].set_axis(header, axis=1).loc[:, list(map(bool, header))]
    return table.assign(split=table["split"].str.strip()) if "split" in table else table


def csv_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file, and return its column names and (row number, {column: text}) pairs.

    The header is row 1, and blank lines after it count as rows. Raises: see `csv_table`.
    """
    table = csv_table(path)
    return list(table), list(zip(table.index + 1, table.to_dict("records"), strict=True))  # type: ignore[arg-type]

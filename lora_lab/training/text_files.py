"""Read users' text, JSON Lines and CSV files. Error messages name the line."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue

SPLITS = ("train", "validation", "test")
END = "\x00the end"  # a marker after the last line, which an unclosed quotation mark absorbs


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
    found = {str(split) if split == split and split is not None else "nothing" for split in given}  # NaN != NaN
    if found != set(SPLITS):
        names, wanted = ", ".join(sorted(found)), ", ".join(SPLITS)
        raise BadValue(f"{path}: 'split' must contain each of {wanted} and nothing else; it has {names}")


def json_rows(path: Path, *names: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read JSON Lines and yield pairs (line number, object). Only a line feed ends a line.

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


def csv_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file, and return its column names and pairs (line number, row). A row may lack its last columns.

    Raises: BadValue for a file without a header, for two columns with the same name, for an unclosed quotation mark, or
    for a row longer than the header.
    """
    csv.field_size_limit(2**31 - 1)  # allow long texts
    text = text_of(path, newline="")  # keep line ends inside texts unchanged
    reader = csv.reader(chain(io.StringIO(text, newline=""), [END]))
    numbered, line = [], 1
    for fields in reader:
        if fields:
            numbered.append((line, fields))
        line = reader.line_num + 1
    last, fields = numbered.pop()
    if fields != [END]:
        raise BadValue(f"{path} cannot be read as csv: line {last} opens a quotation mark that is never closed")
    if not numbered:
        raise BadValue(f"{path} cannot be read as csv: it is empty")
    (_, header), *rows = numbered
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise BadValue(f"{path} has {header.count(twice[0])} columns named '{twice[0]}': rename or remove all but one")
    for line, fields in rows:
        if 1 < len(header) < len(fields):  # a one-field header lacks a column, which is reported elsewhere
            raise BadValue(
                f"{path}, line {line} has {len(fields)} fields, but the header has {len(header)}: put texts with "
                'commas in quotes, "like, this", and remove commas at line ends'
            )
    return list(dict.fromkeys(header)), [(line, dict(zip(header, fields, strict=False))) for line, fields in rows]

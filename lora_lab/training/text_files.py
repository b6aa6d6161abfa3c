"""Read users' files: text, JSON lines, CSV. Errors name the line."""

from __future__ import annotations

import csv
import io
import json
from itertools import chain
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue

END = "\x00the end"  # a marker after the last line: an unclosed quotation mark swallows it


def text_of(path: Path, newline: str | None = None) -> str:
    """Read a UTF-8 file, without a byte-order mark; `newline` is that of `open`.

    Raises: BadValue if it is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except ValueError as error:
        raise BadValue(f"{path} is not UTF-8 text: save it as UTF-8 (in Excel: 'CSV UTF-8')") from error


def json_rows(path: Path, *names: str) -> list[tuple[int, dict[str, Any]]]:
    """Read JSON lines; returns (line number, object) pairs. Only a line feed ends a line.

    names   expected fields, for the error message
    Raises: BadValue for a line that is not a JSON object.
    """
    rows = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadValue(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                wanted = ", ".join(f'"{name}": ...' for name in names)
                raise BadValue(f"{path}, line {number} is not an object such as {{{wanted}}}")
            rows.append((number, row))
    return rows


def csv_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV; returns the column names and (line number, row) pairs. A row may lack its last columns.

    Raises: BadValue for a file without a header, an unclosed quotation mark, or a row longer than the header.
    """
    csv.field_size_limit(2**31 - 1)  # allow long texts
    text = text_of(path, newline="")  # line ends inside a text stay as they are
    reader = csv.reader(chain(io.StringIO(text, newline=""), [END]))
    found, line = [], 1
    for fields in reader:
        if fields:
            found.append((line, fields))
        line = reader.line_num + 1
    last, fields = found.pop()
    if fields != [END]:
        raise BadValue(f"{path} cannot be read as csv: line {last} opens a quotation mark that is never closed")
    if not found:
        raise BadValue(f"{path} cannot be read as csv: it is empty")
    (_, header), *rows = found
    for line, fields in rows:
        if 1 < len(header) < len(fields):  # a header of one field lacks a column, which is reported elsewhere
            raise BadValue(
                f"{path}, line {line} has {len(fields)} fields and the header {len(header)}: put texts with commas in "
                'quotes, "like, this", and remove commas at line ends'
            )
    named = [(line, dict(reversed(list(zip(header, fields, strict=False))))) for line, fields in rows]
    return list(dict.fromkeys(header)), named  # of two columns with the same name the first counts

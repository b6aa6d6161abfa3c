"""Files that somebody else wrote: text, lines of JSON, rows of CSV. What is wrong with one is said with its line."""

from __future__ import annotations

import csv
import io
import json
from itertools import chain
from pathlib import Path
from typing import Any

from lora_lab.errors import BadValue

END = "\x00the end"  # a line behind the last: within quotation marks that nothing closes it is no row of its own


def text_of(path: Path, newline: str | None = None) -> str:
    """What a file says, without the mark that Windows puts before it; `newline` as `open` takes it.

    Raises: BadValue where it is not in UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except ValueError as error:
        raise BadValue(f"{path} is no text in UTF-8: save it as that, in Excel as 'CSV UTF-8'") from error


def json_rows(path: Path, *names: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file, one a line, each with its line. Only a line feed ends one.

    names   what an object should hold, for the sentence of the error
    Raises: BadValue for a line that is no JSON object.
    """
    rows = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadValue(f"{path}, line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                wanted = ", ".join(f'"{name}": ...' for name in names)
                raise BadValue(f"{path}, line {number} is no object such as {{{wanted}}}")
            rows.append((number, row))
    return rows


def csv_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The names of a CSV's columns, and its rows, each with the line it begins in; a row may lack its last columns.

    Raises: BadValue for a file without a header, a quotation mark that nothing closes, a row longer than the header.
    """
    csv.field_size_limit(2**31 - 1)  # a text may be long
    text = text_of(path, newline="")  # a text keeps its own ends of lines
    reader = csv.reader(chain(io.StringIO(text, newline=""), [END]))
    found, line = [], 1
    for fields in reader:
        if fields:
            found.append((line, fields))
        line = reader.line_num + 1
    last, fields = found.pop()
    if fields != [END]:
        raise BadValue(f"{path} cannot be read as csv: line {last} opens a quotation mark that nothing closes")
    if not found:
        raise BadValue(f"{path} cannot be read as csv: it is empty")
    (_, header), *rows = found
    for line, fields in rows:
        if 1 < len(header) < len(fields):  # with one field no comma divides the header: it is a column that is missing
            raise BadValue(
                f"{path}, line {line} has {len(fields)} fields and the header {len(header)}: put a text with commas in "
                'quotes, "like, this", and end no line with a comma'
            )
    named = [(line, dict(reversed(list(zip(header, fields, strict=False))))) for line, fields in rows]
    return list(dict.fromkeys(header)), named  # of two columns with one name the first counts

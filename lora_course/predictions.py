"""The prediction log: what was guessed in a lesson and what was found, a line each in predictions.jsonl beside it.

It stays on the machine that it was made on until its owner hands it in; LORA_LAB_PREDICTIONS=0 keeps none.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from lora_lab.errors import printable

FILE = "predictions.jsonl"
LARGEST = 4 * 2**20
"""Bytes that are read of one file."""
COLUMNS = ("file", "student", "lesson", "what", "attempt", "guess", "found", "unit", "fast", "at")


def log(what: str, guess: float | None, found: float, unit: str, *, fast: bool) -> None:
    """Add a line to the log in this folder, where a notebook runs and nobody has declined. A full disk is no error.

    One line is one write to the end of the file, so two notebooks in a folder do not mix theirs.
    """
    if os.environ.get("LORA_LAB_PREDICTIONS") == "0" or not _in_a_notebook():
        return
    lesson = Path(os.environ.get("JPY_SESSION_NAME", "")).stem  # what Jupyter calls the notebook
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "student": os.environ.get("LORA_LAB_STUDENT", ""),
        "lesson": lesson, "what": what, "guess": _number(guess), "found": _number(found), "unit": unit, "fast": fast,
    }  # fmt: skip
    with suppress(OSError):
        file = os.open(FILE, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(file, (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="replace"))
        finally:
            os.close(file)


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines of all logs below a folder, each with its file and as which attempt at this question it came.

    A line that cannot be read is passed over: the file is a student's.
    """
    rows = []
    for path in sorted(folder.rglob(FILE)):
        name, attempts = path.relative_to(folder).as_posix(), dict[tuple[str, str], int]()
        for row in lines(path):
            asked = (row["lesson"], row["what"])
            attempts[asked] = attempts.get(asked, 0) + 1
            rows.append({**row, "file": name, "attempt": attempts[asked]})
    return rows


def lines(path: Path, begin: int = 0) -> Iterator[dict[str, Any]]:
    """The lines of one log that can be read, from a byte on; a link or a pipe by that name is no log."""
    if path.is_symlink() or not path.is_file():
        return
    try:
        with path.open("rb") as file:
            file.seek(begin)
            content = file.read(LARGEST).decode("utf-8", errors="replace")
    except OSError:
        return
    for line in content.split("\n"):  # not splitlines, which also ends one at U+2028, that JSON leaves in a text
        with suppress(ValueError, TypeError, RecursionError):
            if isinstance(row := json.loads(line), dict):
                texts = {name: str(row.get(name, ""))[:200] for name in ("at", "student", "lesson", "what", "unit")}
                numbers = {name: _number(row.get(name)) for name in ("guess", "found")}
                yield {**texts, **numbers, "fast": bool(row.get("fast"))}


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each question: how many guessed, between which, and what was found. First attempts only."""
    first = [row for row in rows if row["attempt"] == 1]
    said = []
    for asked in dict.fromkeys((row["lesson"], row["what"]) for row in first):
        here = [row for row in first if (row["lesson"], row["what"]) == asked]
        guesses, found = _numbers(here, "guess"), _numbers(here, "found")
        unit = f" {here[0]['unit']}".rstrip()
        middle = f"{min(guesses):,.4g} to {max(guesses):,.4g}, half below {median(guesses):,.4g}" if guesses else "-"
        was = f"{median(found):,.4g}{unit}" if found else "-"
        name = ": ".join(part for part in asked if part)
        said.append(printable(f"{name}: {len(guesses)} of {len(here)} guessed, {middle}; it was {was}"))
    return "\n".join(said) or "no prediction was logged"


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _in_a_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None

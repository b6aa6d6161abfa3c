"""Predictions: ranges sealed before a result, and their log, predictions.jsonl beside the lesson.

The log stays on the student's machine until it is handed in; LORA_LAB_PREDICTIONS=0 turns it off.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from lora_course.receipts import CURRENT, Range, coverage, finite, student
from lora_lab.errors import BadValue, printable
from lora_lab.training.watching import headless

FILE = "predictions.jsonl"
LARGEST = 4 * 2**20
"""Most bytes to read of one file."""
EXAMPLE = (0.4, 1.7, 0.1, -0.6, 0.7, 0.9, 2.4, 0.3, -0.2, 0.6, 0.5, 1.2)  # of `calibration`
FORMULAS = ("=", "+", "-", "@")
NUMBERS = ("low", "high", "found")
COLUMNS = ("file", "student", "lesson", "what", "attempt", *NUMBERS, "unit", "fast", "at")


def fast() -> bool:
    """Whether lessons run shortened (FAST=1). Not cached: the grader sets it after this module is imported."""
    return os.environ.get("FAST", "") not in ("", "0")


def predict(what: str, low: Any = ..., high: Any = ...) -> None:
    """Seal a prediction: the range that you are 80 % sure of. `reveal` needs it to show the result.

    A range given after the result was shown counts as a second attempt. Raises: BadValue for ends that are not
    numbers, or swapped.
    """
    if low is None or high is None:
        skip(what)
    elif low is ... or high is ...:
        print(f'"{what}" needs your range: put a number in place of each ..., or call lesson.skip("{what}")')
    elif (low := finite(low, "low")) > (high := finite(high, "high")):
        raise BadValue(f"low={low:g} is above high={high:g}: swap them")
    else:
        print(f"{what}: sealed, {in_full(low)} to {in_full(high)}{_seal(what, low, high)}")


def skip(what: str) -> None:
    """Make no prediction; `reveal` then shows the result anyway."""
    print(f"{what}: skipped{_seal(what, None, None)}")


def _seal(what: str, low: float | None, high: float | None) -> str:
    """Keep a range as the latest for this question; return a note from the second attempt on."""
    mine = CURRENT.ranges
    seen = dict.fromkeys([*_logged(what), *((r.low, r.high) for r in mine if r.what == what and r.found is not None)])
    attempt = [*seen, (low, high)].index((low, high)) + 1
    same = next((r for r in mine if (r.what, r.low, r.high) == (what, low, high)), Range(what, low, high, attempt))
    mine[:] = [r for r in mine if r is not same and (r.what != what or r.found is not None)] + [same]
    return f" (attempt {attempt}; the first one counts)" if attempt > 1 else ""


def reveal(what: str, found: float, unit: str = "") -> None:
    """Print the result beside the sealed range, and log both; without a range the result stays sealed.

    With LORA_LAB_HEADLESS=1 nothing is sealed: a solved notebook shows all results.
    """
    mine = next((one for one in reversed(CURRENT.ranges) if one.what == what), None)
    it_is = f"{what}: it is {in_full(finite(found, what))}{unit if unit == '%' else f' {unit}'.rstrip()}"
    if mine is None:
        sealed = f'"{what}" stays sealed: give your range above first, or call lesson.skip("{what}")'
        print(f"{it_is}." if headless() else sealed)
        return
    mine.found = finite(found, what)
    if (mine.low, mine.high) not in _logged(what):
        log(what, mine.low, mine.high, mine.found, unit)
    side = "you made no prediction"
    if mine.low is not None and mine.high is not None:
        off = max(mine.low - mine.found, mine.found - mine.high)
        side = "inside your range" if mine.held else f"outside your range, by {in_full(off, 3)}"
        side += f" ({in_full(mine.low)} to {in_full(mine.high)}, {in_full(mine.high - mine.low, 3)} wide)"
    again = f" This is attempt {mine.attempt}: only the first counts." if mine.attempt > 1 else ""
    print(f"{it_is}; {side}.{again}")


def calibration() -> dict[str, float]:
    """Print how many of your ranges, in this folder's logs and this lesson, contain the result, against 80 %.

    Returns where each result fell in its range, by lesson and question: 0 at the low end, 1 at the high end.
    Without any, it is a made-up example of a reader who is too sure.
    """
    logged = [row for row in read(Path()) if row["student"] == student() and row["low"] is not None]
    known = {(row["lesson"], row["what"]) for row in logged}
    ranges = [Range(row["what"], row["low"], row["high"], row["attempt"], row["found"]) for row in logged]
    ranges += [one for one in CURRENT.ranges if (CURRENT.lesson, one.what) not in known]
    print(coverage(ranges)["words"])
    lessons = [row["lesson"] for row in logged] + [CURRENT.lesson] * len(ranges)
    places = {}
    for lesson, one in zip(lessons, ranges, strict=False):
        if one.attempt == 1 and one.low is not None and one.high is not None and one.found is not None:
            places[f"{lesson} {one.what}"] = (one.found - one.low) / ((one.high - one.low) or 1e-9)
    if not places:
        print("No ranges of yours were found here, so this is a made-up example: a reader who is too sure.")
    return places or {f"question {n}": place for n, place in enumerate(EXAMPLE, 1)}


def in_full(value: float, digits: int = 4) -> str:
    """Format a number: from 1,000 to ten million all digits before the point, else `digits` significant ones."""
    return f"{value:,.0f}" if 1000 <= abs(value) <= 1e7 else f"{value:,.{digits}g}"


def log(what: str, low: float | None, high: float | None, found: float, unit: str) -> None:
    """Add a line to the log in this folder, in a notebook and unless turned off. A full disk is not an error.

    A line is one write at the end of the file, so two notebooks in a folder do not mix their lines.
    """
    shell = sys.modules.get("IPython")
    if os.environ.get("LORA_LAB_PREDICTIONS") == "0" or shell is None or shell.get_ipython() is None:
        return
    numbers = {"low": low, "high": high, "found": found}
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "student": student(), "lesson": _lesson(),
            "what": what, **numbers, "unit": unit, "fast": fast()}  # fmt: skip
    with suppress(OSError):
        file = os.open(FILE, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
        try:
            os.write(file, (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="replace"))
        finally:
            os.close(file)


def _lesson() -> str:
    """Return the started lesson, or the notebook's name."""
    return CURRENT.lesson or Path(os.environ.get("JPY_SESSION_NAME", "")).stem


def _logged(what: str) -> list[tuple[float | None, float | None]]:
    """Return this student's ranges for a question of this lesson whose result was shown."""
    asked = (_lesson(), what, student())
    return [(r["low"], r["high"]) for r in lines(Path(FILE)) if (r["lesson"], r["what"], r["student"]) == asked]


def read(folder: Path) -> list[dict[str, Any]]:
    """Read all logs in a folder and below; each line gets its file and its attempt at the question.

    Unreadable lines are skipped.
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
    """Yield the readable lines of one log, starting at a byte; links and pipes are ignored."""
    content = b""
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                file.seek(begin)
                content = file.read(LARGEST)
    for line in content.split(b"\n"):  # not splitlines, which also splits at U+2028, which JSON allows in texts
        with suppress(ValueError, TypeError, RecursionError):
            if isinstance(row := json.loads(line.decode(errors="replace")), dict):
                texts = {name: str(row.get(name, ""))[:200] for name in ("at", "student", "lesson", "what", "unit")}
                numbers = {name: _number(row.get(name)) for name in NUMBERS}
                yield {**texts, **numbers, "fast": bool(row.get("fast"))}


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Summarize each question in a line: how many gave a range, how many of these held, and the result.

    Only first attempts count.
    """
    first = [row for row in rows if row["attempt"] == 1]
    said = []
    for asked in dict.fromkeys((row["lesson"], row["what"]) for row in first):
        here = [row for row in first if (row["lesson"], row["what"]) == asked]
        lows, _, found = ([row[name] for row in here if row[name] is not None] for name in NUMBERS)
        held = sum(Range("", row["low"], row["high"], found=row["found"]).held is True for row in here)
        told = f"{len(lows)} of {len(here)} gave a range, and {held} of these contain the result"
        was = f"{median(found):,.4g} {here[0]['unit']}".rstrip() if found else "-"
        said.append(printable(f"{': '.join(filter(None, asked))}: {told}; it was {was}"))
    return "\n".join(said) or "no prediction was logged"


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write CSV in which no text acts as a formula in a spreadsheet or a command in a terminal."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (head, *rows):
        texts = [printable(value) if isinstance(value, str) else value for value in row]
        writer.writerow([f"'{text}" if str(text)[:1] in FORMULAS and isinstance(text, str) else text for text in texts])
    return out.getvalue()


def _number(value: Any) -> float | None:
    """Return a finite number, or None."""
    with suppress(BadValue):
        return finite(value, "")
    return None

"""Predictions: ranges sealed before the result is shown, and their log (predictions.jsonl, beside the lesson).

The log stays on the student's machine until it is handed in; LORA_LAB_PREDICTIONS=0 turns logging off.
"""

import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from lora_course.receipts import CURRENT, Range, coverage, finite, handed_in, key_of, student
from lora_lab.errors import BadValue, printable, switched_on
from lora_lab.training.watching import headless

FILE = "predictions.jsonl"
LARGEST = 4 * 2**20  # maximum number of bytes read from one file
EXAMPLE = (0.4, 1.7, -0.9, -0.6, 0.7, 0.9, 2.4, 0.3, -0.2, 1.4, 0.5, 1.2)  # used by `calibration`
UTF_16 = {
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
}  # encodings by byte-order mark, as editors on Windows write
FORMULAS = ("=", "+", "-", "@")
NUMBERS = ("low", "high", "found")
COLUMNS = ("file", "student", "lesson", "what", "attempt", *NUMBERS, "unit", "fast", "at")


def predict(what: str, low: Any = ..., high: Any = ...) -> None:
    """Seal a range; you should be 80% sure that it contains the result. Until it's sealed, `reveal` shows nothing.

    A range given after the result was shown counts as a second attempt.
    Raises: BadValue if `low` or `high` is not a number, or if `low` is greater than `high`.
    """
    if low is None or high is None:
        skip(what)
    elif low is ... or high is ...:
        print(f'"{what}" needs your range: replace each ... with a number, or call lesson.skip("{what}")')
    elif (low := finite(low, "low")) > (high := finite(high, "high")):
        raise BadValue(f"low={low:g} is greater than high={high:g}: swap them")
    else:
        print(f"{what}: sealed, {in_full(low)} to {in_full(high)}{_seal(what, low, high)}")


def skip(what: str) -> None:
    """Make no prediction; `reveal` then shows the result anyway."""
    print(f"{what}: skipped{_seal(what, None, None)}")


def _seal(what: str, low: float | None, high: float | None) -> str:
    """Record a range as the latest for this question; return a note if this is not the first attempt, else ""."""
    ranges = CURRENT.ranges
    seen = dict.fromkeys([*_logged(what), *((r.low, r.high) for r in ranges if r.what == what and r.found is not None)])
    attempt = [*seen, (low, high)].index((low, high)) + 1
    latest = next((r for r in ranges if (r.what, r.low, r.high) == (what, low, high)), Range(what, low, high, attempt))
    ranges[:] = [r for r in ranges if r is not latest and (r.what != what or r.found is not None)] + [latest]
    return f" (attempt {attempt}; the first one counts)" if attempt > 1 else ""


def reveal(what: str, found: float, unit: str = "") -> None:
    """Print the result and the sealed range, and log both; without a range, show the result only in headless mode."""
    guess = next((r for r in reversed(CURRENT.ranges) if r.what == what), None)
    found = float(f"{finite(found, what):.12g}")  # so that 76.8 - 73.6 gives exactly 3.2
    result = f"{what}: it is {in_full(found, 3)}{unit if unit == '%' else f' {unit}'.rstrip()}"
    if guess is None:
        sealed = f'"{what}" stays sealed: give your range above first, or call lesson.skip("{what}")'
        print(f"{result}." if headless() else sealed)
        return
    logged, own = _logged(what), (guess.low, guess.high)
    guess.found = next(n for n in (logged.get(own), guess.found, found) if n is not None)  # the first result counts
    if own not in logged:
        log(what, *own, guess.found, unit)
    outcome = "you made no prediction"
    if guess.low is not None and guess.high is not None:
        miss = max(guess.low - found, found - guess.high)
        outcome = "inside your range" if miss <= 0 else f"outside your range, by {in_full(miss, 3)}"
        outcome += f" ({in_full(guess.low)} to {in_full(guess.high)}, {in_full(guess.high - guess.low, 3)} wide)"
    note = f" This is attempt {guess.attempt}: only the first counts." if guess.attempt > 1 else ""
    note += f" The first result counts: {in_full(guess.found)}." * (guess.found != found)
    print(f"{result}; {outcome}.{note}")


def calibration() -> dict[str, float]:
    """Print how many of your ranges in this folder's logs and this lesson contain the result; the goal is 80%.

    Return where each result fell in its range: 0 at the low end, 1 at the high end. Without ranges, return an example.
    """
    logged = [row for row in read(Path()) if row["low"] is not None and key_of(row["student"]) == key_of(student())]
    fields = ("what", "low", "high", "attempt", "found")
    ranges = [(row["lesson"], Range(*(row[name] for name in fields))) for row in logged]
    in_log = {(lesson, r.what) for lesson, r in ranges}
    ranges += [(CURRENT.lesson, r) for r in CURRENT.ranges if (CURRENT.lesson, r.what) not in in_log]
    print(coverage(r for _, r in ranges)["words"])
    positions = {
        f"lesson {lesson}: {r.what}": (r.found - r.low) / ((r.high - r.low) or 1e-9)
        for lesson, r in ranges
        if r.attempt == 1 and r.low is not None and r.high is not None and r.found is not None
    }
    if not positions:
        print("You have no ranges here yet, so this is a made-up example of an overconfident reader.")
    return positions or {f"question {n}": position for n, position in enumerate(EXAMPLE, 1)}


def in_full(value: float, digits: int = 4) -> str:
    """Format a number: as an integer from 1,000 to ten million, otherwise with `digits` significant digits."""
    rounded = abs(float(f"{value:.{digits}g}"))  # 999.7 is 1,000
    return f"{value:,.0f}" if 1000 <= rounded <= 1e7 else f"{value:,.{digits}g}"


def log(what: str, low: float | None, high: float | None, found: float, unit: str) -> None:
    """Append a line to the log in this folder if this is a notebook and logging is on; ignore a full disk.

    A line is written in a single append, so two notebooks don't mix their lines. The log's encoding is kept.
    """
    shell = sys.modules.get("IPython")
    if os.environ.get("LORA_LAB_PREDICTIONS") == "0" or shell is None or shell.get_ipython() is None:
        return
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "student": student(), "lesson": _lesson(),
            "what": what, "low": low, "high": high, "found": found, "unit": unit,
            "fast": switched_on("FAST")}  # fmt: skip
    with suppress(OSError), open(FILE, "a+b", buffering=0) as file:  # os.open would write \r\n on Windows
        file.seek(0)
        encoding = UTF_16.get((logged := file.read())[:2], "utf-8")
        gap = "\n" * (logged.decode(encoding, "replace")[-1:] not in ("", "\n"))  # ends a line that was cut off
        padding = b"\0" * (len(logged) % 2 * (encoding != "utf-8"))  # completes half a letter
        file.write(padding + f"{gap}{json.dumps(line, ensure_ascii=False)}\n".encode(encoding, "replace"))


def _lesson() -> str:
    return CURRENT.lesson or Path(os.environ.get("JPY_SESSION_NAME", "")).stem  # the notebook, if no lesson was started


def _logged(what: str) -> dict[tuple[float | None, float | None], float | None]:
    """Return the results of this student's logged ranges for a question of this lesson."""
    key = (_lesson(), what, key_of(student()))
    rows = [r for r in lines(Path(FILE)) if (r["lesson"], r["what"], key_of(r["student"])) == key]
    return {(r["low"], r["high"]): r["found"] for r in rows}


def read(folder: Path) -> list[dict[str, Any]]:
    """Read all logs in a folder, recursively, skipping unreadable lines; add file and attempt to each line."""
    rows, seen = [], set[str]()
    for path in handed_in(folder, FILE):
        name, attempts = path.relative_to(folder).as_posix(), Counter[tuple[str, ...]]()
        for row in lines(path):
            question = (key_of(row["student"]), row["lesson"], row["what"])
            attempts[question] += 1
            if row["at"] and json.dumps(row) in seen:  # from an earlier copy of the log
                continue
            seen.add(json.dumps(row))
            rows.append({**row, "file": name, "attempt": attempts[question]})
    return rows


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the readable lines of one log; symlinks and pipes are ignored."""
    content = b""
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                content = file.read(LARGEST)
    text = content.decode(UTF_16.get(content[:2], "utf-8"), "replace").removeprefix("\ufeff")
    for line in text.split("\n"):  # not splitlines: JSON strings may contain U+2028
        with suppress(ValueError, TypeError, RecursionError):
            if isinstance(row := json.loads(line), dict):
                texts = {name: str(row.get(name, ""))[:200] for name in ("at", "student", "lesson", "what", "unit")}
                numbers: dict[str, float | None] = dict.fromkeys(NUMBERS)
                for name in NUMBERS:
                    with suppress(BadValue):
                        numbers[name] = finite(row.get(name), name)
                yield {**texts, **numbers, "fast": bool(row.get("fast"))}


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Summarize the first attempts at each question in one line: how many ranges contain the result."""
    first = [row for row in rows if row["attempt"] == 1]
    summaries = []
    for question in dict.fromkeys((row["lesson"], row["what"]) for row in first):
        answers = [row for row in first if (row["lesson"], row["what"]) == question]
        lows, _, found = ([row[name] for row in answers if row[name] is not None] for name in NUMBERS)
        held = sum(Range("", row["low"], row["high"], found=row["found"]).held is True for row in answers)
        counts = f"{len(lows)} of {len(answers)} gave a range, and {held} of these contain the result"
        result = f"{median(found):,.4g} {answers[0]['unit']}".rstrip().replace(" %", "%") if found else "-"
        summaries.append(printable(f"{': '.join(filter(None, question))}: {counts}; the result was {result}"))
    return "\n".join(summaries) or "no prediction was logged"


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return CSV in which no text acts as a formula in a spreadsheet or a command in a terminal."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (head, *rows):
        texts = [printable(value) if isinstance(value, str) else value for value in row]
        writer.writerow([f"'{text}" if str(text)[:1] in FORMULAS and isinstance(text, str) else text for text in texts])
    return out.getvalue()

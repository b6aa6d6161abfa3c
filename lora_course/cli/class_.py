"""`lora-lab class`: read the receipts that a class pasted into a chat or a file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from statistics import mean, stdev
from typing import IO, TYPE_CHECKING, Any

import click

from lora_lab.cli.shared import JSON, say, tell
from lora_lab.errors import NotFound
from lora_lab.report import aligned

if TYPE_CHECKING:
    from lora_course.receipts import Receipt


@click.command("class")
@click.argument("file", type=click.File(encoding="utf-8", errors="replace"))
@JSON
def class_(file: IO[str], as_json: bool) -> None:
    """Read the receipts (LL1 ...) in FILE, such as a saved chat; - reads standard input.

    Prints students by lesson, the most-missed exercises and predictions, all results, and the calibration.
    """
    from lora_course.receipts import read

    receipts, damaged = read(file.read())
    for line in damaged:
        say(line)
    if not receipts:
        raise NotFound(f"{file.name} has no readable receipt: paste the lines that lesson.receipt() prints")
    found = summary(receipts)
    tell({**found, "damaged": damaged} if as_json else _in_words(receipts, found))


def summary(receipts: list[Receipt]) -> dict[str, Any]:
    """Exercises and predictions, the most missed first; only first attempts count. `std` of one value is None."""
    from lora_course.receipts import coverage

    checks, ranges, results = defaultdict[Any, list](list), defaultdict[Any, list](list), defaultdict[Any, list](list)
    for one in receipts:
        for name, check in one.checks.items():
            checks[one.lesson, name].append(check)
        for given in one.ranges:
            if given.attempt == 1 and given.held is not None:
                ranges[one.lesson, given.what].append(given.held)
        for name, value in one.notes.items():
            results[one.lesson, name].append(value)
    missed = [
        {"lesson": lesson, "check": name, "missed": sum(not one.passed for one in every), "of": len(every),
         "tries": mean(one.tries for one in every)} for (lesson, name), every in checks.items()
    ]  # fmt: skip
    held = [
        {"lesson": lesson, "what": what, "held": sum(every), "of": len(every)}
        for (lesson, what), every in ranges.items()
    ]
    noted = [
        {"lesson": lesson, "name": name, "values": sorted(every), "mean": mean(every),
         "std": stdev(every) if len(every) > 1 else None} for (lesson, name), every in sorted(results.items())
    ]  # fmt: skip
    return {
        "receipts": [asdict(one) for one in receipts],
        "checks": sorted(missed, key=lambda one: (-one["missed"] / one["of"], -one["tries"])),
        "predictions": sorted(held, key=lambda one: one["held"] / one["of"]),
        "results": noted,
        "calibration": coverage(given for one in receipts for given in one.ranges),
    }


def _in_words(receipts: list[Receipt], found: dict[str, Any]) -> str:
    lessons = sorted({one.lesson for one in receipts})
    students: dict[str, dict[str, str]] = {}
    for number, one in enumerate(receipts, 1):
        row = students.setdefault(one.student.casefold() or str(number), {"": one.student or f"(no name, {number})"})
        row[one.lesson] = f"{sum(check.passed for check in one.checks.values())}/{len(one.checks)}"
    tables = {
        "Exercises passed": [["student", *lessons]]
        + [[row.get(column, "-") for column in ("", *lessons)] for _, row in sorted(students.items())],
        "Most missed": [
            [row["lesson"], row["check"], f"{row['missed']} of {row['of']} missed, {row['tries']:.1f} tries"]
            for row in found["checks"]
        ],
        "Predictions that held": [
            [row["lesson"], row["what"], f"{row['held']} of {row['of']}"] for row in found["predictions"]
        ],
        "Results": [
            [row["lesson"], row["name"], "" if row["std"] is None else f"mean {row['mean']:.4g}, std {row['std']:.2g}",
             ", ".join(f"{value:.4g}" for value in row["values"])] for row in found["results"]
        ],
        "Calibration": [[found["calibration"]["words"]]],
    }  # fmt: skip
    return "\n\n".join("\n".join([title, *aligned(lines)]) for title, lines in tables.items() if lines)

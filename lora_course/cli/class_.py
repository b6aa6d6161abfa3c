"""`lora-lab class`: read the receipts that a class has pasted into a chat or a file."""

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
    result = summary(receipts)
    tell({**result, "damaged": damaged} if as_json else _in_words(receipts, result))


def summary(receipts: list[Receipt]) -> dict[str, Any]:
    """Summarize exercises and predictions, most-missed first, by first attempts only. `std` of one value is None."""
    from lora_course.receipts import coverage

    checks, ranges, results = defaultdict[Any, list](list), defaultdict[Any, list](list), defaultdict[Any, list](list)
    for receipt in receipts:
        for name, check in receipt.checks.items():
            checks[receipt.lesson, name].append(check)
        for guess in receipt.ranges:
            if guess.attempt == 1 and guess.held is not None:
                ranges[receipt.lesson, guess.what].append(guess.held)
        for name, value in receipt.notes.items():
            results[receipt.lesson, name].append(value)
    missed = [
        {"lesson": lesson, "check": name, "missed": sum(not check.passed for check in group), "of": len(group),
         "tries": mean(check.tries for check in group)} for (lesson, name), group in checks.items()
    ]  # fmt: skip
    held = [
        {"lesson": lesson, "what": what, "held": sum(group), "of": len(group)}
        for (lesson, what), group in ranges.items()
    ]
    notes = [
        {"lesson": lesson, "name": name, "values": sorted(group), "mean": mean(group),
         "std": stdev(group) if len(group) > 1 else None} for (lesson, name), group in sorted(results.items())
    ]  # fmt: skip
    return {
        "receipts": [asdict(receipt) for receipt in receipts],
        "checks": sorted(missed, key=lambda row: (-row["missed"] / row["of"], -row["tries"])),
        "predictions": sorted(held, key=lambda row: row["held"] / row["of"]),
        "results": notes,
        "calibration": coverage(guess for receipt in receipts for guess in receipt.ranges),
    }


def _in_words(receipts: list[Receipt], summary: dict[str, Any]) -> str:
    lessons = sorted({receipt.lesson for receipt in receipts})
    students: dict[str, dict[str, str]] = {}
    for number, receipt in enumerate(receipts, 1):
        name = receipt.student or f"(no name, {number})"
        row = students.setdefault(receipt.student.casefold() or str(number), {"": name})
        row[receipt.lesson] = f"{sum(check.passed for check in receipt.checks.values())}/{len(receipt.checks)}"
    tables = {
        "Exercises passed": [["student", *lessons]]
        + [[row.get(column, "-") for column in ("", *lessons)] for _, row in sorted(students.items())],
        "Most missed": [
            [row["lesson"], row["check"], f"{row['missed']} of {row['of']} missed, {row['tries']:.1f} tries"]
            for row in summary["checks"]
        ],
        "Predictions that held": [
            [row["lesson"], row["what"], f"{row['held']} of {row['of']}"] for row in summary["predictions"]
        ],
        "Results": [
            [row["lesson"], row["name"], "" if row["std"] is None else f"mean {row['mean']:.4g}, std {row['std']:.2g}",
             ", ".join(f"{value:.4g}" for value in row["values"])] for row in summary["results"]
        ],
        "Calibration": [[summary["calibration"]["words"]]],
    }  # fmt: skip
    return "\n\n".join("\n".join([title, *aligned(lines)]) for title, lines in tables.items() if lines)

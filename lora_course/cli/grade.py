"""`lora-lab grade`: the checks of students' notebooks, each run in a process of its own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lora_lab.cli.shared import JSON, say, tell

if TYPE_CHECKING:
    from lora_course.classroom.grading.folder import Grade


@click.command()
@click.argument("path", metavar="NOTEBOOK|FOLDER")
@click.option("--seconds", type=click.FloatRange(min=1), default=300, show_default=True, help="For each notebook.")
@click.option("--memory", type=click.FloatRange(min=0.25), default=4, show_default=True, help="GiB for each notebook.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Notebooks side by side.")
@click.option("--full", is_flag=True, help="Train at full length; else FAST=1, an illustration of each training.")
@click.option("--lesson", default=None, help="The notebook as it was handed out, where it is no lesson of the lab.")
@click.option("--csv", "table", default=None, help="Also write a table with a line for each notebook to this file.")
@JSON
def grade(
    path: str, seconds: float, memory: float, jobs: int, full: bool, lesson: str | None, table: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run a student's notebook, or all below a folder, in fresh processes and count what the lesson's checks say.

    A guard against accidents and mischief, not a sandbox: see docs/teaching.md.
    """
    from lora_course.classroom.grading import folder, lessons
    from lora_lab.errors import BadValue
    from lora_lab.files import write_atomically

    known = [lessons.lesson_of(Path(lesson))] if lesson else None
    limits = folder.Limits(seconds, memory, full)

    def write(rows: list[Grade]) -> None:
        if table:
            write_atomically(Path(table), folder.as_csv(rows).encode("utf-8-sig"))  # so that Excel knows its letters

    def keep(rows: list[Grade]) -> None:
        with suppress(BadValue):  # Excel has it open, for one: the end tries again, and says so
            write(rows)

    rows = folder.grade(path, limits=limits, jobs=jobs, known=known, say=say, keep=keep)
    tell({"notebooks": [row.to_json() for row in rows]} if as_json else _in_words(rows))
    write(rows)


def _in_words(rows: list[Grade]) -> str:
    right, asked = sum(row.count("right") for row in rows), sum(len(row.checks) for row in rows)
    return f"{len(rows)} notebook{'s' * (len(rows) != 1)}: {right} of {asked} checks right"

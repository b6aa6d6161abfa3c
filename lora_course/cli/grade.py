"""`lora-lab grade`: run students' notebooks, each in its own process, and judge the answers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from lora_lab.cli.shared import JSON, say, tell


@click.command()
@click.argument("path", metavar="NOTEBOOK|FOLDER")
@click.option("--seconds", type=click.FloatRange(min=1), default=300, show_default=True, help="Seconds per notebook.")
@click.option("--memory", type=click.FloatRange(min=0.25), default=4, show_default=True, help="GiB per notebook.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Notebooks to grade at once.")
@click.option("--full", is_flag=True, help="Train at full length instead of for a few steps (FAST=1).")
@click.option("--lesson", default=None, help="The notebook as handed out, if it isn't one of the lab's.")
@click.option("--csv", "table", default=None, help="Also write a table, one line per notebook, to this file.")
@JSON
def grade(
    path: str, seconds: float, memory: float, jobs: int, full: bool, lesson: str | None, table: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run one notebook, or all below a folder, in fresh processes, and judge the answers with the lab's checks.

    This guards against accidents; it is a sandbox only on Linux with bubblewrap (docs/teaching.md).
    """
    from lora_course.classroom import grading
    from lora_lab.errors import BadValue
    from lora_lab.files import write_atomically

    def write(rows: list[dict[str, Any]]) -> None:
        if table:
            write_atomically(Path(table), grading.table(rows).encode("utf-8-sig"))  # the byte-order mark is for Excel

    def keep(rows: list[dict[str, Any]]) -> None:
        with suppress(BadValue):  # such as a file open in Excel: the last write tries again and reports the error
            write(rows)

    known = [grading.Lesson(Path(lesson))] if lesson else None
    limits = grading.Limits(seconds, memory, full)
    rows = grading.grade(path, limits=limits, jobs=jobs, known=known, say=say, keep=keep)
    if not all(row["walls"].get("files", True) for row in rows):
        say("not sandboxed: that needs Linux with bubblewrap; see Grading in docs/teaching.md")
    right, total = sum(row["right"] for row in rows), sum(row["of"] for row in rows)
    words = f"{len(rows)} notebook{'s' * (len(rows) != 1)}: {right} of {total} checks right"
    tell({"notebooks": rows} if as_json else words)
    write(rows)

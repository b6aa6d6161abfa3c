"""`lora-lab predictions`: compare what a class predicted with what it found."""

from __future__ import annotations

import click

from lora_lab.cli.shared import JSON, tell


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False), default=".")
@click.option("--csv", "table", default=None, help="Also write a table, one line per prediction, to this file.")
@JSON
def predictions(folder: str, table: str | None, as_json: bool) -> None:
    """Collect all predictions.jsonl files below FOLDER, by student, lesson and question."""
    from pathlib import Path

    from lora_course import predictions as logs
    from lora_lab.files import write_atomically

    rows = logs.read(Path(folder))
    if table:
        lines = [[row[name] for name in logs.COLUMNS] for row in rows]
        write_atomically(Path(table), logs.as_csv(logs.COLUMNS, lines).encode("utf-8-sig"))
    tell({"predictions": rows} if as_json else logs.summary(rows))

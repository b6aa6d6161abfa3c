"""`lora-lab doctor`: what this machine has; with --preflight, whether it is ready for a course, and what to do."""

from __future__ import annotations

from pathlib import Path

import click

from lora_lab.cli import doctor as look
from lora_lab.cli.shared import JSON, say, tell
from lora_lab.errors import Failed


@click.command()
@click.option(
    "--preflight", is_flag=True, help="Is it ready for a course? Green or red for each thing, and what to do."
)
@click.option("--out", default=None, help="With --preflight: the file to send back.")
@click.option("--dir", "folder", default=".", show_default=True, help="With --preflight: where the lab will be used.")
@click.option("--port", type=click.IntRange(1, 65535), default=8888, show_default=True, help="With --preflight.")
@click.option("--collect", default=None, help="A folder of files that were sent back: one table of them.")
@JSON
def doctor(preflight: bool, out: str | None, folder: str, port: int, collect: str | None, as_json: bool) -> None:
    """What this machine has and how the lab will use it."""
    if preflight:
        _preflight(out, Path(folder).expanduser().absolute(), port, as_json)
    elif collect:
        from lora_course.classroom.preflight.report import collected, letters_in

        letters = letters_in(Path(collect))
        tell({"files": letters} if as_json else collected(letters))
    else:
        click.get_current_context().invoke(look, as_json=as_json)


def _preflight(out: str | None, folder: Path, port: int, as_json: bool) -> None:
    """Raises: Failed where anything is red, after all has been said."""
    from lora_course.classroom.preflight.findings import words
    from lora_course.classroom.preflight.lab import preflight
    from lora_course.classroom.preflight.report import FILE, write_letter

    findings = preflight(folder, port, say=say)
    letter, path = write_letter(findings, Path(out or FILE).expanduser().absolute())
    tell(letter if as_json else f"{words(findings)}\nto be sent back, without names: {path}")
    if not letter["green"]:
        count = sum(one.in_the_way for one in findings)
        raise Failed(f"{count} of {len(findings)} red: do what stands beside each, then run this once more")

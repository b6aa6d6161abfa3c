"""`lora-lab doctor`: show what this machine has; with --preflight, check whether it is ready for a course."""

from __future__ import annotations

from pathlib import Path

import click

from lora_lab.cli import doctor as look
from lora_lab.cli.shared import JSON, say, tell
from lora_lab.errors import Failed


@click.command()
@click.option("--preflight", is_flag=True, help="Check if it is ready for a course: ok or RED, and what to do.")
@click.option("--out", default=None, help="With --preflight: the file to send to your teacher.")
@click.option("--dir", "folder", default=".", show_default=True, help="With --preflight: where you'll use the lab.")
@click.option("--port", type=click.IntRange(1, 65535), default=8888, show_default=True, help="With --preflight.")
@click.option("--collect", default=None, help="Print one table from a folder of such files.")
@JSON
def doctor(preflight: bool, out: str | None, folder: str, port: int, collect: str | None, as_json: bool) -> None:
    """Show what this machine has and how the lab will use it."""
    from lora_course.classroom import preflight as course

    if preflight:
        findings = course.preflight(Path(folder).expanduser().absolute(), port, say)
        letter, path = course.write_letter(findings, Path(out or course.FILE).expanduser().absolute())
        tell(letter if as_json else f"{course.words(findings)}\nsend this to your teacher (no names in it): {path}")
        if count := sum(not finding.green for finding in findings):
            raise Failed(f"{count} of {len(findings)} red: follow the arrows above, then run this again")
    elif collect:
        letters = course.letters_in(Path(collect))
        width, ready = max(map(len, letters)), sum(bool(letter["green"]) for letter in letters.values())
        lines = [f"{name:{width}}  {course.summary(letter)}" for name, letter in letters.items()]
        tell({"files": letters} if as_json else "\n".join([*lines, f"{ready} of {len(letters)} are ready"]))
    else:
        click.get_current_context().invoke(look, as_json=as_json)

"""`lora-lab show`: show the panels on a projector."""

from __future__ import annotations

import click

from lora_lab.cli.shared import say


@click.command()
@click.option("--out", default="runs", show_default=True, help="The store of runs for the training panel.")
@click.option("--port", type=click.IntRange(0, 65535), default=8866, help="First port to try; 0 for any.")
@click.option("--no-browser", is_flag=True, help="Only start the server and print its address.")
def show(out: str, port: int, no_browser: bool) -> None:
    """Show the three main panels on a projector, without code (needs the extra `show`)."""
    from lora_course.classroom import projector

    projector.show(out, port=port, browser=not no_browser, say=say)

"""`lora-lab show`: a page of panels for a projector."""

import webbrowser
from pathlib import Path

import click


@click.command()
@click.option("--out", default="panels.html", show_default=True, help="The page to write.")
@click.option("--no-browser", is_flag=True, help="Write the page without opening it.")
def show(out: str, no_browser: bool) -> None:
    """Open a page with five panels for a projector, without code; it needs no kernel and no network."""
    from lora_course.classroom import projector

    projector.write(path := Path(out).expanduser().absolute())
    click.echo(f"the panels are in {path}")
    if not no_browser:
        webbrowser.open(path.as_uri())

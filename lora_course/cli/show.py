"""`lora-lab show`: a page of panels for a projector, without code, kernel or network."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from lora_lab.cli.shared import tell


@click.command()
@click.option("--out", default="panels.html", show_default=True, help="The page to write.")
@click.option("--no-browser", is_flag=True, help="Write the page without opening it.")
def show(out: str, no_browser: bool) -> None:
    """Write a page with five panels for a projector, and open it in a browser.

    LoRA to scale, a matrix by rank, the playground, memory, and methods compared. What is shown ships with the lab.
    """
    from lora_lab import ComparePanel, LoRAPanel, MemoryPanel, RankPanel, SweepPanel
    from lora_lab.files import write_atomically
    from lora_lab.widgets.base import page

    panels = (LoRAPanel("model"), RankPanel("picture"), SweepPanel(), MemoryPanel(), ComparePanel())
    path = Path(out).expanduser().absolute()
    write_atomically(path, page(*(panel.snapshot() for panel in panels)).encode())
    tell(f"the panels are in {path}")
    if not no_browser:
        webbrowser.open(path.as_uri())

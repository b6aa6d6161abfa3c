"""A page of panels for a projector: no code, no kernel, no network. What it shows ships with the lab."""

from __future__ import annotations

from pathlib import Path

import lora_lab
from lora_lab.files import write_atomically
from lora_lab.widgets.base import page

PANELS = ("LoRAPanel", "RankPanel", "SweepPanel", "MemoryPanel", "ComparePanel")


def write(path: Path) -> None:
    """Write the page. Raises: BadValue if the file can't be written."""
    made = [getattr(lora_lab, name)() for name in PANELS]
    write_atomically(path, page(*(panel.snapshot() for panel in made)).encode())

"""A still picture of a panel for saved notebooks: a screenshot that chromium takes."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops  # comes with matplotlib

from lora_lab.errors import Failed, NotFound
from lora_lab.widgets.base import page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--hide-scrollbars", "--force-prefers-reduced-motion", "--virtual-time-budget=2000",
)  # fmt: skip
TALLEST = 2400  # CSS pixels; taller panels are cut off
COLORS = 128


def still(snapshot: dict[str, Any], *, width: int = 1000, dark: bool = False, scale: float = 1.5) -> bytes:
    """A PNG of a panel, from `Panel.snapshot()`.

    width   of the panel, in CSS pixels
    scale   pixels of the picture per CSS pixel
    Raises: NotFound without chromium; Failed if it takes no picture.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise NotFound("pictures of panels need chromium or google-chrome: install one of them")
    with tempfile.TemporaryDirectory() as folder:
        shown, taken = Path(folder, "panel.html"), Path(folder, "panel.png")
        shown.write_text(page(snapshot, dark=dark), encoding="utf-8")
        window = (f"--window-size={width + 24},{TALLEST}", f"--force-device-scale-factor={scale}")
        command = [browser, *FLAGS, *window, f"--user-data-dir={folder}/profile", f"--screenshot={taken}"]
        done = subprocess.run([*command, shown.as_uri()], capture_output=True, text=True, timeout=120)
        if not taken.is_file():
            raise Failed(f"{browser} took no picture of {snapshot['panel']}: {done.stderr[-300:].strip()}")
        picture = Image.open(taken).convert("RGB")
    paper = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    drawn = ImageChops.difference(picture, paper).getbbox()
    if drawn is None:
        raise Failed(f"{browser} drew nothing of {snapshot['panel']}: open the page that Panel.save writes, and look")
    return small_png(picture.crop(drawn))


def small_png(picture: Image.Image) -> bytes:
    """The picture as a PNG of 128 colors, a third of the bytes; rare colors, such as a legend's, are kept."""
    file = io.BytesIO()
    few = picture.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return file.getvalue()

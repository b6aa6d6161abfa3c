"""Screenshots of panels for saved notebooks, taken by chromium."""

import io
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageChops  # comes with matplotlib

from lora_lab.errors import Failed, NotFound
from lora_lab.widgets.base import page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--hide-scrollbars", "--force-prefers-reduced-motion", "--virtual-time-budget=2000",
)  # fmt: skip
TALLEST = 2400  # CSS pixels; taller panels are cut off
FREQUENT, BRIGHT, RARE = 14, 8, 10  # colors of a picture; bright ones are those of lines and bars


def still(snapshot: dict[str, Any], *, width: int = 1000, dark: bool = False, scale: float = 1.25) -> bytes:
    """Return a PNG of a panel, from `Panel.snapshot()`.

    width   Width of the panel in CSS pixels.
    scale   Pixels of the screenshot per CSS pixel.
    Raises: NotFound without chromium; Failed if chromium takes no screenshot.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise NotFound("screenshots of panels need chromium or google-chrome: install one of them")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # on Windows, the browser may still run
        html, png = Path(folder, "panel.html"), Path(folder, "panel.png")
        html.write_text(page(snapshot, dark=dark), encoding="utf-8")
        window = (f"--window-size={width + 24},{TALLEST}", f"--force-device-scale-factor={scale}")
        command = [browser, *FLAGS, *window, f"--user-data-dir={folder}/profile", f"--screenshot={png}"]
        result = subprocess.run([*command, html.as_uri()], capture_output=True, timeout=120)
        if not png.is_file():
            why = result.stderr[-300:].decode(errors="replace").strip()
            raise Failed(f"{browser} took no screenshot of {snapshot['panel']}: {why}")
        picture = Image.open(png).convert("RGB")
    box = ImageChops.difference(picture, Image.new("RGB", picture.size, picture.getpixel((0, 0)))).getbbox()
    if box is None:
        raise Failed(f"{browser} drew nothing for {snapshot['panel']}: open the page that Panel.save writes to see why")
    return small_png(picture.crop(box))


def small_png(picture: Image.Image) -> bytes:
    """Encode a picture as a PNG of few colors, a third of the usual size: frequent, bright and some rare ones."""
    picture = picture.convert("RGB")
    colors = cast("list[tuple[int, tuple[int, ...]]]", picture.getcolors(picture.width * picture.height))
    few = picture.quantize(RARE, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    ranked = [color for _, color in sorted(colors, reverse=True)]
    bright: list[tuple[int, ...]] = []
    for color in (color for color in ranked if max(color) - min(color) > 75):
        if len(bright) < BRIGHT and all(np.abs(np.subtract(color, other)).max() > 40 for other in bright):
            bright.append(color)  # no shade of a color that is kept
    palette = np.array([*ranked[:FREQUENT], *bright, *np.reshape(few.getpalette() or [], (-1, 3))])
    palette[palette.min(1) > 247] = 255  # nearly white becomes white
    few.putpalette(palette.ravel().tolist())
    file = io.BytesIO()
    picture.quantize(palette=few, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()

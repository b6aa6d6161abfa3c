"""A still picture of a panel, as a saved notebook shows it: chromium draws the panel on a page and is photographed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_lab.errors import NotFound
from lora_lab.widgets.base import page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def stills(
    snapshots: Iterable[dict[str, Any]], *, width: int = 1000, dark: bool = False, scale: float = 1.5
) -> list[bytes]:
    """A PNG of each panel, from `Panel.snapshot()`.

    width   of the panel in CSS pixels; scale: pixels of the picture for each
    Raises: NotFound where chromium or playwright is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise NotFound("pictures of panels are taken by playwright: pip install playwright") from None
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise NotFound("pictures of panels are taken by chromium, and there is none: install it, or google-chrome")
    taken = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
        view = chromium.new_page(
            viewport={"width": width + 24, "height": 900}, device_scale_factor=scale, reduced_motion="reduce"
        )
        for snapshot in snapshots:
            file = Path(folder, "panel.html")
            file.write_text(page(snapshot, dark=dark), encoding="utf-8")
            view.goto(file.as_uri())
            card = view.locator(".lab-panel .card")
            card.wait_for()
            view.wait_for_timeout(100)  # the page is laid out, and the panel drawn at its real width
            taken.append(card.screenshot())
        chromium.close()
    return taken

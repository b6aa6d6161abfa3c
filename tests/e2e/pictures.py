"""Screenshots of panels for the pages of docs/: `make pictures` writes docs/pictures/*.png.

The training panel trains while it runs, for some minutes; the others show reference results that ship with the lab. In
the class's, those results are dealt to five folders, one seed each, with invented guesses.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops
from playwright.sync_api import Locator, sync_playwright

from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from lora_lab.widgets.still import small_png
from tests.e2e.conftest import BROWSER_FLAGS, Lab, Watched, running, write_notebook

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
TALLEST = 1_150  # pixels: a panel's long tables end below the frame
PATIENCE = 1_800_000  # milliseconds for a cell, on a slow machine
LAPTOPS = {"ada": 78, "grace": 83, "emmy": 80, "sofia": 76, "alan": 88}  # a seed and an invented guess each

PANELS = {
    "train": """
from lora_lab import Recipe, TrainPanel, sweep
sweep([Recipe("minilm", "rt", steps=200, batch=8, seed=seed) for seed in range(1, 5)], "seeds")
TrainPanel("minilm", "rt", steps=200, batch=8, guess=75, seeds="seeds").show()
""",
    "sweep": """
from lora_lab import SweepPanel
panel = SweepPanel(view="alpha")
panel.guess = {"alpha": "root"}
panel
""",
    "class": """
from lora_course.panels.class_panel import ClassPanel
ClassPanel("class")
""",
    "compare": """
from lora_lab import ComparePanel
panel = ComparePanel(margin=0.025)
panel.resample(200)
panel
""",
}


def write(folder: Path) -> str:
    """A notebook with a cell for each panel, and beside it what the cells read. Returns its name."""
    runs = Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs()
    for seed, (name, guess) in enumerate(LAPTOPS.items()):
        own = folder / "class" / name
        for run in (run for run in runs if run.recipe.seed == seed):
            Store(own / "runs").add(run)
        (own / "guess.json").write_text(json.dumps({"name": name.capitalize(), "guess": guess}))
    return write_notebook(folder / "panels.ipynb", PANELS.values())


def photographed(panel: Locator) -> bytes:
    """A panel without the empty paper around it."""
    picture = Image.open(io.BytesIO(panel.screenshot())).convert("RGB")
    left, top, right, bottom = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    width, height = min(right + 8, picture.width), min(bottom + 8, picture.height, top + TALLEST)
    return small_png(picture.crop((max(0, left - 8), max(0, top - 8), width, height)))


def main(*wanted: str) -> None:
    """Photograph the panels that are named, or all of them."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        guard, folder = Path(scratch, "guard"), Path(scratch, "panels")
        guard.mkdir()
        folder.mkdir()
        notebook = write(folder)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=BROWSER_FLAGS)
        with running(guard, folder, LORA_LAB_HEADLESS="1") as lab:
            page = browser.new_page(viewport={"width": 1460, "height": 3000})
            _photograph_all(Watched(page, lab), lab, notebook, wanted or tuple(PANELS))
        browser.close()


def _photograph_all(watched: Watched, lab: Lab, notebook: str, wanted: tuple[str, ...]) -> None:
    page = watched.open(notebook)
    for place, name in enumerate(PANELS):
        if name not in wanted:
            continue
        cell = page.locator(".jp-Notebook .jp-Cell").nth(place)
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        panel = cell.locator(".jp-OutputArea-child").last.locator(".jp-OutputArea-output")
        panel.locator("img, canvas, svg, .widget-html").first.wait_for(timeout=PATIENCE)
        page.wait_for_selector(".jp-NotebookPanel-toolbar [data-status=idle]", timeout=PATIENCE)
        page.wait_for_timeout(2_000)
        (PICTURES / f"{name}.png").write_bytes(photographed(panel))
        print(name, (PICTURES / f"{name}.png").stat().st_size, file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main(*sys.argv[1:])

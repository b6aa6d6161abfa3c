"""Write the pictures of panels in docs/pictures, as they look with a kernel: `python docs/pictures.py [PANEL ...]`.

The training panel trains, for some minutes; the others show reference results that ship with the lab. In the class's,
those results are dealt to five folders, one seed each, with invented guesses.
"""

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from lora_course.panels.class_panel import ClassPanel
from lora_lab import ComparePanel, Recipe, SweepPanel, TrainPanel, sweep
from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from lora_lab.widgets.base import Panel, page
from lora_lab.widgets.still import small_png

PICTURES = Path(__file__).parent / "pictures"
TALLEST = 1_150  # pixels: a panel's long tables end below the frame
LAPTOPS = {"ada": 78, "grace": 83, "emmy": 80, "sofia": 76, "alan": 88}  # a seed and an invented guess each


def trained(folder: Path) -> TrainPanel:
    sweep([Recipe("minilm", "rt", steps=200, batch=8, seed=seed) for seed in range(1, 5)], folder / "seeds")
    runs = {"store": folder / "runs", "seeds": folder / "seeds"}
    return TrainPanel("minilm", "rt", steps=200, batch=8, guess=75, **runs).show()


def swept(folder: Path) -> SweepPanel:
    panel = SweepPanel(view="alpha", into=folder / "runs")
    panel.guess = {"alpha": "root"}
    return panel


def classroom(folder: Path) -> ClassPanel:
    runs = Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs()
    for seed, (name, guess) in enumerate(LAPTOPS.items()):
        for run in (run for run in runs if run.recipe.seed == seed):
            Store(folder / name / "runs").add(run)
        (folder / name / "guess.json").write_text(json.dumps({"name": name.capitalize(), "guess": guess}), "utf-8")
    return ClassPanel(folder)


def compared(folder: Path) -> ComparePanel:
    panel = ComparePanel(margin=0.025)
    panel.resample(200)
    return panel


PANELS = {"train": trained, "sweep": swept, "class": classroom, "compare": compared}


def main(*wanted: str) -> None:
    """Photograph the panels that are named, or all of them, as they look with a kernel."""
    os.environ["LORA_LAB_HEADLESS"] = "1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in wanted or PANELS:
            with tempfile.TemporaryDirectory() as folder:
                panel: Panel = PANELS[name](Path(folder, "panel"))
                file = Path(folder, "page.html")
                file.write_text(page(panel.snapshot()).replace("kernel: false", "kernel: true"), encoding="utf-8")
                view = browser.new_page(viewport={"width": 1024, "height": 900})
                view.goto(file.as_uri())
                picture = Image.open(io.BytesIO(view.locator(".lab-panel .card").screenshot()))
            picture = picture.crop((0, 0, picture.width, min(picture.height, TALLEST)))
            (PICTURES / f"{name}.png").write_bytes(small_png(picture))
            print(name, picture.size)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

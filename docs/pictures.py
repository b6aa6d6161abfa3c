"""Write the pictures in docs/pictures and docs/panels: `make pictures`, or `python docs/pictures.py [NAME ...]`.

docs/pictures has panels with a kernel, docs/panels has panels without one. The training panel trains for some minutes;
the others show results that ship with the lab. For the class panel, these results are split among five folders, one
seed each, with invented guesses.
"""

import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from lora_course.panels.class_panel import ClassPanel
from lora_lab import ComparePanel, LoRAPanel, Recipe, TrainPanel, sweep
from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from lora_lab.widgets.base import Panel, page

sys.path.append(str(Path(__file__).resolve().parents[1] / "notebooks"))
from still import small_png, still

DOCS = Path(__file__).resolve().parent
MAX_HEIGHT = 1_150  # pixels; long tables are cut off
LAPTOPS = {"ada": 78, "grace": 83, "emmy": 80, "sofia": 76, "alan": 88}  # each student's guess; the seeds are 0 to 4


def train_panel(folder: Path) -> TrainPanel:
    sweep([Recipe("minilm", "rt", steps=200, batch=8, seed=seed) for seed in range(1, 5)], folder / "seeds")
    stores = {"store": folder / "runs", "seeds": folder / "seeds"}
    return TrainPanel("minilm", "rt", steps=200, batch=8, guess=75, **stores).show()


def class_panel(folder: Path) -> ClassPanel:
    runs = Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs()
    for seed, (name, guess) in enumerate(LAPTOPS.items()):
        for run in (run for run in runs if run.recipe.seed == seed):
            Store(folder / name / "runs").add(run)
        (folder / name / "guess.json").write_text(json.dumps({"name": name.capitalize(), "guess": guess}), "utf-8")
    return ClassPanel(folder)


def compare_panel(folder: Path) -> ComparePanel:
    panel = ComparePanel(margin=0.03)
    panel.resample(200)
    return panel


LIVE = {"train": train_panel, "class": class_panel, "compare": compare_panel}
STILL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # settings of `LoRAPanel`, and of `still`
    "size": ({"view": "size", "d": 4096, "rank": 64}, {}),
    "model": ({"view": "model", "model": "llama-3-8b", "rank": 64}, {}),
    "steps_dark": ({"view": "steps"}, {"dark": True}),
    "narrow": ({"view": "merge"}, {"width": 360}),
}


def screenshot(panel: Panel) -> bytes:
    """Return a PNG of a panel as it looks with a kernel."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        (file := Path(folder, "page.html")).write_text(
            page(panel.snapshot()).replace("kernel: false", "kernel: true"), encoding="utf-8"
        )
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1024, "height": 900})
        view.goto(file.as_uri())
        picture = Image.open(io.BytesIO(view.locator(".lab-panel .card").screenshot()))
    return small_png(picture.crop((0, 0, picture.width, min(picture.height, MAX_HEIGHT))))


def main(*names: str) -> None:
    """Write the named pictures, by default all."""
    os.environ["LORA_LAB_HEADLESS"] = "1"
    for name in names or (*LIVE, *STILL):
        if name in LIVE:
            with tempfile.TemporaryDirectory() as folder, chdir(folder):  # short paths in the picture
                picture = screenshot(LIVE[name](Path()))
        else:
            settings, options = STILL[name]
            picture = still(LoRAPanel(**settings).snapshot(), **options)
        file = DOCS / ("pictures" if name in LIVE else "panels") / f"{name}.png"
        file.write_bytes(picture)
        print(f"{file.name}: {len(picture):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One notebook that holds every panel with something to show; nothing trains, the results ship with the lab."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lora_lab.training.assets import shipped
from tests.e2e.conftest import write_notebook

PANELS = {
    "class": """
from lora_course.panels.class_panel import ClassPanel
ClassPanel("school")
""",
}


def write(folder: Path) -> str:
    """Write the notebook and what its cells read into a folder. Returns its name."""
    results = shipped("data/results")
    shutil.unpack_archive(results / "sweeps" / "rate_rank_alpha.zip", folder / "school" / "ada" / "runs")
    (folder / "school" / "ada" / "guess.json").write_text(json.dumps({"name": "Ada", "guess": 78}))
    return write_notebook(folder / "everyone.ipynb", PANELS.values())

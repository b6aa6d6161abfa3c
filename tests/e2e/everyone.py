"""One notebook that holds every panel with something to show; nothing trains, the results ship with the lab."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lora_lab.training.assets import shipped
from tests.e2e.conftest import write_notebook

PANELS = {
    "rank": """
from lora_lab.widgets.rank_panel import RankPanel
RankPanel("picture", rank=8)
""",
    "train": """
from lora_lab.widgets.train_panel import TrainPanel
TrainPanel("minilm", "rt", store="earlier", steps=20)
""",
    "class": """
from lora_course.panels.class_panel import ClassPanel
ClassPanel("school")
""",
    "microscope": """
from lora_course.experiments.microscope import views_from
from lora_course.lesson import reference_microscope
from lora_course.panels.microscope_panel import MicroscopePanel
MicroscopePanel(views_from(reference_microscope()["views"]))
""",
    "style": """
from lora_course.panels.style_panel import StylePanel
panel = StylePanel({"captain": "voices/captain", "preacher": "voices/preacher"})
panel.live.texts = {name: f"I am {name}, and the sky is blue. " * 4 for name in panel.live.texts}
panel.live.tokens, panel.live.seconds, panel.live.state = 40, 2.5, "done"
panel._paint()
panel
""",
    "claim": """
from lora_course.panels.claim_card import ClaimCard
ClaimCard()
""",
}


def write(folder: Path) -> str:
    """Write the notebook and what its cells read into a folder. Returns its name."""
    results = shipped("data/results")
    shutil.unpack_archive(results / "sweeps" / "rate_rank_alpha.zip", folder / "school" / "ada" / "runs")
    (folder / "school" / "ada" / "guess.json").write_text(json.dumps({"name": "Ada", "guess": 78}))
    (folder / "earlier").mkdir()
    record = json.loads((results / "minilm-rt-r8.json").read_text())
    (folder / "earlier" / f"{record['hash']}.json").write_text(json.dumps(record))
    for voice in ("captain", "preacher"):  # what they say is written below them; their files' sizes are read
        (folder / "voices" / voice).mkdir(parents=True)
        shutil.copy(results / "minilm-rt-r8" / "adapter_model.safetensors", folder / "voices" / voice)
    return write_notebook(folder / "everyone.ipynb", PANELS.values())

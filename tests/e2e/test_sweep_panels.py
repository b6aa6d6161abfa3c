"""A sweep as a teacher starts it before a class: started, stopped, resumed in a browser, then shown on a projector."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.conftest import Lab, Watched, shown

OPINIONS = "text,label\n" + "".join(
    f"{'a fine and moving' if n % 2 else 'a dull and hollow'} film number {n},{n % 2}\n" for n in range(60)
)
SWEEP = """
from lora_lab.widgets.sweep_panel import SweepPanel
grid = {"rank": (1, 2), "lr": (1e-3, 4e-3), "seed": (0, 1), "steps": 60, "batch": 4}
SweepPanel(task="opinions.csv", store="class/ada/runs", **grid).show()
"""
CLASS = """
from lora_course.panels.class_panel import ClassPanel
ClassPanel("class")
"""


def test_a_sweep_is_started_stopped_resumed_and_then_shown_to_the_class(lab: Lab, watched: Watched) -> None:
    folder: Path = lab.folder / "class"
    (lab.folder / "opinions.csv").write_text(OPINIONS)
    panel = watched.opened("sweep.ipynb", SWEEP)
    expect(panel).to_contain_text("8 runs of minilm", timeout=60_000)
    panel.get_by_role("button", name="Start").click()
    expect(panel).to_contain_text(re.compile(r"step \d+ of 60"), timeout=120_000)
    panel.get_by_role("button", name="Stop").click()
    expect(panel).to_contain_text("Start trains what is left", timeout=60_000)
    panel.get_by_role("button", name="Start").click()
    expect(panel).to_contain_text(re.compile(r"done: 8 done, 0 left, 0 failed"), timeout=180_000)
    expect(panel).to_contain_text("Validation chooses")
    assert shown(panel)
    cell = panel.get_by_role("button", name=re.compile(r"^2, 0\.004: ")).first
    cell.click()  # a click on a cell shows its curves
    expect(cell).to_have_class(re.compile("mod-primary"), timeout=20_000)
    assert len(list(folder.rglob("adapter_model.safetensors"))) == 8

    shutil.copytree(folder / "ada", folder / "grace")
    (folder / "grace" / "guess.json").write_text('{"name": "Grace", "guess": 81}')
    projector = watched.opened("class.ipynb", CLASS)
    expect(projector).to_contain_text("8 runs from 2 laptops", timeout=60_000)
    expect(projector).to_contain_text("Grace's 81%")
    assert shown(projector)
    (folder / "grace" / "guess.json").write_text('{"name": "Grace", "guess": 99}')
    projector.get_by_role("button", name="Refresh").click()
    expect(projector).to_contain_text("Grace's 99%", timeout=60_000)
    assert not watched.elsewhere
    assert not lab.blocked.exists(), lab.blocked.read_text()

"""The class panel on a projector: what two laptops left, and a guess that comes late."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from tests.e2e.conftest import Lab, Watched, shown

CLASS = """
from lora_course.panels.class_panel import ClassPanel
ClassPanel("class")
"""


def test_what_laptops_left_is_shown_and_refreshed(lab: Lab, watched: Watched) -> None:
    folder: Path = lab.folder / "class"
    runs = Store(shipped("data/results/sweeps/rate_rank_alpha.zip")).runs()[:8]
    for name in ("ada", "grace"):
        for run in runs:
            Store(folder / name / "runs").add(run)
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

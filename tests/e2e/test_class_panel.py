"""The class panel on a projector: what two laptops left, and a guess that comes late."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import expect

from lora_lab.training.assets import shipped
from tests.e2e.conftest import Lab, Watched, shown

CLASS = """
from lora_course.panels.class_panel import ClassPanel
ClassPanel("class")
"""


def test_what_laptops_left_is_shown_and_refreshed(lab: Lab, watched: Watched) -> None:
    folder: Path = lab.folder / "class"
    records = sorted(shipped("data/results/sweeps/rate_rank_alpha").glob("*.json"))[:8]
    for name in ("ada", "grace"):
        (folder / name / "runs").mkdir(parents=True)
        for record in records:
            shutil.copy(record, folder / name / "runs")
            shutil.copytree(record.with_suffix(""), folder / name / "runs" / record.stem)
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

"""The class panel: what students' laptops left in a folder, as a map, guesses and words."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lora_course.panels.class_panel import ClassPanel, guesses
from lora_lab.errors import BadValue, NotFound
from lora_lab.training.runs import Store
from tests.e2e.pages import class_in


@pytest.fixture
def classroom(tmp_path: Path) -> Path:
    """Two laptops' runs, and three guesses, each written in a way of its own."""
    folder = class_in(tmp_path / "class")
    (folder / "ada" / "guess.json").write_text(json.dumps({"name": "Ada <b>", "guess": 88}))
    (folder / "emmy" / "guess.json").write_text(json.dumps({"guess": 0.6}))
    return folder


def test_everyones_runs_are_on_one_map_with_guesses_beside_what_was_measured(classroom: Path):
    panel = ClassPanel(classroom)
    assert "36 runs by 2 students" in panel.data["about"]
    assert {run["who"] for run in panel.data["runs"]} == {"laptop0", "laptop1"}
    assert panel.lr == panel.best.lr == 5e-3
    assert guesses(classroom) == [("Ada <b>", 88.0), ("emmy", 0.6), ("grace", 95.0)]
    assert panel.classroom["guesses"] == [["Ada <b>", 88.0], ["emmy", 60.0], ["grace", 95.0]]
    own = [run for laptop in (0, 1) for run in Store(classroom / f"laptop{laptop}" / "runs").runs()]
    own = [run for run in own if (run.recipe.lr, run.recipe.method.alpha) == (panel.best.lr, panel.best.alpha)]
    assert panel.classroom["measured"] == pytest.approx(100 * np.mean([run.metrics["accuracy"] for run in own]))
    assert panel.classroom["left_out"] == ""
    assert "3 guesses. Measured on test: " in panel.describe()


def test_refresh_shows_what_has_arrived_since_and_answers_the_browser_each_time(tmp_path: Path, classroom: Path):
    folder = tmp_path / "another class"
    folder.mkdir()
    panel = ClassPanel(folder)
    assert not panel.data["runs"]
    shutil.copytree(classroom / "laptop0", folder / "one")
    panel._heard(panel, {"do": "refresh"}, [])
    assert "18 runs by 1 student:" in panel.data["about"]
    assert panel.lr == panel.best.lr
    panel.alpha, panel.lr = 64.0, 1e-3  # the teacher looks at another cell
    before = panel.live
    panel._heard(panel, {"do": "refresh"}, [])
    assert (panel.alpha, panel.lr) == (64.0, 1e-3)
    assert panel.live != before


def test_a_folder_that_is_not_there_and_a_store_within_it_are_loud(tmp_path: Path, classroom: Path):
    with pytest.raises(NotFound, match="no folder"):
        ClassPanel(tmp_path / "nowhere")
    with pytest.raises(BadValue, match="is inside"):
        ClassPanel(classroom, classroom / "all")

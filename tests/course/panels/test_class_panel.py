import json
import shutil

import numpy as np
import pytest

from lora_course.panels.class_panel import ClassPanel, guesses
from lora_lab import BadValue, NotFound, Store
from tests.conftest import said
from tests.e2e.pages import class_in


@pytest.fixture
def classroom(tmp_path):
    """The runs of two laptops and three guesses, one in percent, one as a fraction and one without a name."""
    folder = class_in(tmp_path / "class")
    (folder / "ada" / "guess.json").write_text(json.dumps({"name": "Ada <b>", "guess": 88}))
    (folder / "emmy" / "guess.json").write_text(json.dumps({"guess": 0.6}))
    return folder


def test_panel_shows_all_runs_guesses_and_the_measured_score(classroom):
    panel = ClassPanel(classroom)
    assert "36 runs by 2 students" in panel.data["about"]
    assert {run["who"] for run in panel.data["runs"]} == {"laptop0", "laptop1"}
    assert panel.lr == panel.best.lr == 5e-3
    assert guesses(classroom) == [("Ada <b>", 88.0), ("emmy", 0.6), ("grace", 95.0)]
    assert panel.classroom["guesses"] == [["Ada <b>", 88.0], ["emmy", 60.0], ["grace", 95.0]]
    runs = [run for laptop in ("laptop0", "laptop1") for run in Store(classroom / laptop / "runs").runs()]
    best = [run for run in runs if (run.recipe.lr, run.recipe.method.alpha) == (panel.best.lr, panel.best.alpha)]
    assert panel.classroom["measured"] == pytest.approx(100 * np.mean([run.metrics["accuracy"] for run in best]))
    assert panel.classroom["left_out"] == ""
    assert "3 guesses. Measured on test: " in panel.describe()


def test_refresh_shows_new_runs_and_always_answers(tmp_path, classroom):
    folder = tmp_path / "another class"
    folder.mkdir()
    panel = ClassPanel(folder)
    assert not panel.data["runs"]
    shutil.copytree(classroom / "laptop0", folder / "one")
    said(panel, "refresh")
    assert "18 runs by 1 student:" in panel.data["about"]
    assert panel.lr == panel.best.lr
    panel.alpha, panel.lr = 64.0, 1e-3  # the teacher looks at another cell
    before = panel.live
    said(panel, "refresh")
    assert (panel.alpha, panel.lr) == (64.0, 1e-3)
    assert panel.live != before  # the browser waits for a change


def test_missing_folder_and_store_inside_it_are_refused(tmp_path, classroom):
    with pytest.raises(NotFound, match="no folder"):
        ClassPanel(tmp_path / "nowhere")
    with pytest.raises(BadValue, match="is inside"):
        ClassPanel(classroom, classroom / "all")

"""The class panel: what students' laptops left in a folder, as a map, guesses and words."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lora_course.panels.class_panel import ClassPanel, guesses
from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments.grid import Grid, share
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Store
from lora_lab.training.tasks import load_task
from tests.conftest import made_run

Write = Callable[..., None]


@pytest.fixture
def write(opinions: str) -> Write:
    """`write(folder, recipes)`: their runs as records, better the nearer the rate is to 2e-3; nothing is trained."""
    labels = np.array(load_task(opinions).test.labels)

    def runs(folder: Path, recipes: list[Recipe], dtype: str = "fp32") -> None:
        for n, recipe in enumerate(recipes):
            wrong = 2 + round(2 * abs(np.log2(recipe.lr / 2e-3))) + (n + recipe.seed) % 2
            answers = np.where(np.arange(len(labels)) < wrong, 1 - labels, labels)
            Store(folder).add(made_run(recipe, answers, {"dtype": dtype}, accuracy=1 - wrong / len(labels)))

    return runs


@pytest.fixture
def grid(opinions: str) -> list[Recipe]:
    return Grid(rank=[1, 4], lr=[1e-3, 2e-3, 4e-3], seed=range(3)).recipes("minilm", opinions, steps=1)


@pytest.fixture
def classroom(tmp_path: Path, write: Write, grid: list[Recipe]) -> Path:
    """Three laptops' shares, and a guess beside two of them."""
    folder = tmp_path / "class"
    for i in (1, 2, 3):
        write(folder / f"laptop{i}" / "runs", share(grid, f"{i}/3"))
    (folder / "laptop1" / "guess.json").write_text(json.dumps({"name": "Ada <b>", "guess": 88}))
    (folder / "laptop2" / "guess.json").write_text(json.dumps({"guess": 0.6}))
    return folder


def test_everyones_runs_are_on_one_map_with_guesses_beside_what_was_measured(classroom: Path):
    panel = ClassPanel(classroom)
    assert "18 runs by 3 students" in panel.data["about"]
    assert {run["who"] for run in panel.data["runs"]} == {"laptop1", "laptop2", "laptop3"}
    assert panel.lr == panel.best.lr == 2e-3
    assert guesses(classroom) == [("Ada <b>", 88.0), ("laptop2", 0.6)]
    assert panel.classroom["guesses"] == [["Ada <b>", 88.0], ["laptop2", 60.0]]
    own = [one for one in panel.playground.results if one.cell == panel.best]
    assert panel.classroom["measured"] == pytest.approx(100 * np.mean([one.value for one in own]))  # alike here
    assert panel.classroom["left_out"] == ""
    assert "2 guesses. Measured on test: " in panel.describe()


def test_refresh_shows_what_has_arrived_since_and_answers_the_browser_each_time(
    tmp_path: Path, write: Write, grid: list[Recipe]
):
    folder = tmp_path / "class"
    folder.mkdir()
    panel = ClassPanel(folder)
    assert not panel.data["runs"]
    write(folder / "one" / "runs", grid)
    panel._heard(panel, {"do": "refresh"}, [])
    assert "18 runs by 1 student:" in panel.data["about"]
    assert panel.lr == 2e-3
    panel.rank, panel.lr = 1, 1e-3  # the teacher looks at another cell
    before = panel.live
    panel._heard(panel, {"do": "refresh"}, [])
    assert (panel.rank, panel.lr) == (1, 1e-3)
    assert panel.live != before


def test_a_folder_that_is_not_there_and_a_store_within_it_are_loud(tmp_path: Path, classroom: Path):
    with pytest.raises(NotFound, match="no folder"):
        ClassPanel(tmp_path / "nowhere")
    with pytest.raises(BadValue, match="is inside"):
        ClassPanel(classroom, classroom / "all")

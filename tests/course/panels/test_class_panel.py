"""The class panel: what forty laptops left in a folder, as a map, a spread, guesses and words."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from lora_course.panels.class_panel import ClassPanel, guesses
from lora_lab.errors import NotFound
from lora_lab.experiments.grid import Grid, share
from lora_lab.training.recipe import Recipe
from lora_lab.training.runs import Run, Store, stores
from lora_lab.training.tasks import load_task
from lora_lab.widgets.panel import plain
from tests.training.conftest import opinions  # noqa: F401

Write = Callable[..., None]


@pytest.fixture
def write(opinions: str) -> Write:  # noqa: F811
    """`write(folder, recipes)`: their runs as records, better the nearer the rate is to 2e-3; nothing is trained."""
    labels = np.array(load_task(opinions).test.labels)

    def run(recipe: Recipe, n: int) -> Run:
        wrong = 2 + round(2 * abs(np.log2(recipe.lr / 2e-3))) + (n + recipe.seed) % 2
        predictions = np.where(np.arange(len(labels)) < wrong, 1 - labels, labels)
        accuracy = 1 - wrong / len(labels)
        history = {"step": [1], "loss": [0.5], "lr": [recipe.lr], "validation": [{"step": 1, "accuracy": accuracy}]}
        made = Run(recipe, {"accuracy": accuracy}, history, 8, 2, 100, 1.0, 1, {})
        return replace(made, predictions=predictions)

    def runs(folder: Path, recipes: list[Recipe]) -> None:
        for n, recipe in enumerate(recipes):
            Store(folder).add(run(recipe, n))

    return runs


@pytest.fixture
def grid(opinions: str) -> list[Recipe]:  # noqa: F811
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


def test_the_words_say_how_much_arrived_and_what_it_shows(classroom: Path):
    words = plain(ClassPanel(classroom).words.value)
    assert words.startswith("18 runs from 3 laptops.")
    assert "Validation chooses" in words
    assert "lr 0.002" in words
    assert "undecided" in words  # ranks are alike in these records


def test_guesses_stand_beside_what_was_measured(classroom: Path):
    assert guesses(classroom) == [("Ada <b>", 88.0), ("laptop2", 0.6)]
    panel = ClassPanel(classroom)
    assert "2 guesses" in plain(panel.words.value)
    assert "is Ada <b>'s 88%" in plain(panel.words.value)
    assert "Ada <b>" not in panel.words.value  # names are shown, never interpreted
    whole = panel.picture.value
    (classroom / "laptop2" / "guess.json").unlink()
    panel.refresh_button.click()
    assert panel.picture.value != whole


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"guess": "high"}', '{"guess": NaN}'])
def test_a_guess_that_is_none_is_passed_over(classroom: Path, text: str):
    (classroom / "laptop3" / "guess.json").write_text(text)
    assert len(guesses(classroom)) == 2


def test_refresh_brings_what_has_arrived_since(classroom: Path, write: Write, grid: list[Recipe]):
    panel = ClassPanel(classroom)
    before = panel.picture.value
    write(classroom / "laptop4" / "runs", [replace(recipe, seed=7) for recipe in grid[::3]])
    panel.refresh_button.click()
    assert plain(panel.words.value).startswith("24 runs from 4 laptops.")
    assert panel.picture.value != before


def test_a_folder_into_which_nothing_has_been_dropped_waits(tmp_path: Path, write: Write, grid: list[Recipe]):
    folder = tmp_path / "class"
    folder.mkdir()
    panel = ClassPanel(folder)
    assert "Nothing to show yet" in plain(panel.words.value)
    panel.view.value = "against rank"  # pressed too early: no error
    write(folder / "one" / "runs", grid)
    panel.refresh()
    assert "18 runs from 1 laptop." in plain(panel.words.value)


def test_a_collected_store_is_shown_as_it_is(classroom: Path):
    first = ClassPanel(classroom)
    store = first.store.folder
    assert stores(store) == {store}
    again = ClassPanel(store)
    assert plain(again.words.value).startswith("18 runs from one store.")
    assert again.table.value == first.table.value


def test_runs_of_another_task_or_length_are_left_out_and_counted(classroom: Path, write: Write, grid: list[Recipe]):
    write(classroom / "laptop4" / "runs", [replace(grid[0], steps=2)])
    words = plain(ClassPanel(classroom).words.value)
    assert words.startswith("19 runs from 4 laptops. 1 of them of another model, task or length are left out.")


def test_the_metric_is_that_of_the_runs_that_are_shown(classroom: Path, grid: list[Recipe]):
    history = {"step": [1], "loss": [0.5], "lr": [1e-3], "validation": [{"step": 1, "matthews": 0.4}]}
    other = Run(replace(grid[0], steps=2), {"matthews": 0.4}, history, 8, 2, 100, 1.0, 1, {})
    Store(classroom / "laptop4" / "runs").add(other)
    panel = ClassPanel(classroom)
    assert panel.metric == "accuracy"
    assert "Validation chooses" in plain(panel.words.value)


def test_the_picture_is_large_opaque_and_follows_the_view(classroom: Path):
    panel = ClassPanel(classroom)
    pixels = imread(io.BytesIO(panel.picture.value))
    assert pixels.shape == (700, 1300, 3)
    seen = set()
    for view in panel.view.options:
        panel.view.value = view
        seen.add(panel.picture.value)
    assert len(seen) == len(panel.view.options)


def test_a_folder_that_is_not_there_is_loud(tmp_path: Path):
    with pytest.raises(NotFound, match="no folder"):
        ClassPanel(tmp_path / "nowhere")


def test_a_record_that_cannot_be_read_is_counted_not_fatal(classroom: Path):
    (classroom / "laptop1" / "runs" / "0123456789ab.json").write_text("{}")
    assert "1 records could not be read" in plain(ClassPanel(classroom).words.value)

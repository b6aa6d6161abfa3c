"""The sweep panel without a browser: fields, a sweep in a thread, Stop and Start, what it shows and says."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments.choice import free, ranked
from lora_lab.experiments.grid import Grid, numbers
from lora_lab.experiments.sweep import sweep
from lora_lab.training.runs import Store
from lora_lab.training.turns import turn
from lora_lab.widgets.live_sweep import Facts, LiveSweep, facts_in
from lora_lab.widgets.panel import plain
from lora_lab.widgets.sweep_panel import SweepPanel
from tests.training.conftest import PLAIN, opinions, tiny_encoder, tiny_models  # noqa: F401
from tests.widgets.conftest import until

Make = Callable[..., SweepPanel]


@pytest.fixture
def make(tiny_encoder: str, opinions: str, tmp_path: Path) -> Make:  # noqa: F811
    """`make(rank=(1, 2))`: a panel over a small grid of runs that take a moment."""

    def panel(**changes: Any) -> SweepPanel:
        grid: dict[str, Any] = {"rank": (1, 4), "lr": (1e-3, 1e-2), "seed": (0, 1), "steps": 6, "validations": 2}
        return SweepPanel(tiny_encoder, opinions, **{**grid, "store": str(tmp_path / "runs"), **PLAIN, **changes})

    return panel


@pytest.fixture(scope="module")
def swept(tiny_encoder: str, opinions: str, tmp_path_factory: pytest.TempPathFactory) -> SweepPanel:  # noqa: F811
    """A panel whose cell ran with nobody watching."""
    fields = {"rank": (1, 4), "lr": (1e-3, 1e-2), "seed": (0, 1), "steps": 60, "validations": 3, **PLAIN}
    return SweepPanel(tiny_encoder, opinions, store=str(tmp_path_factory.mktemp("runs")), **fields).show()


# ---- the fields


def test_the_fields_describe_the_grid(make: Make):
    panel = make()
    assert "8 runs" in plain(panel.count.value)
    panel.fields["seed"].value = "0-4"
    panel.fields["targets"].value = "q,v; all-linear"
    panel.fields["alpha"].value = "2rank"
    recipes = panel.recipes()
    assert len(recipes) == 2 * 2 * 5 * 2
    assert {(r.method.rank, r.method.alpha) for r in recipes} == {(1, 2), (4, 8)}
    assert panel.view.value == "rank x rate"  # alpha follows from the rank: it is no axis of its own


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("rank", "0", "rank must be a whole number of at least 1"),
        ("rank", "4096", "at most 32"),
        ("rank", "1,x", "'x' is none"),
        ("rank", "", "rank is empty"),
        ("seed", "0-99999999999", "at most 1,000 values"),
        ("alpha", "twice", "known: 2rank, fixed, rank, sqrt"),
        ("lr", "nan", "lr must be a number"),
        ("targets", "query_key", "query_key"),
        ("targets", ";", "no targets"),
        ("steps", "20,40", "one number"),
        ("seed", "-1", "seed must be a whole number of at least 0"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_not_started(make: Make, field: str, text: str, words: str):
    panel = make()
    panel.fields[field].value = text
    assert "cannot do that" in panel.count.value
    assert words in plain(panel.count.value)
    panel.start()
    panel.view.value = "against rank"
    assert panel.start_button.disabled
    assert not panel.store.folder.exists()
    with pytest.raises((BadValue, NotFound)):
        panel.show()
    panel.fields[field].value = {"alpha": "16", "targets": "q,v", "steps": "6"}.get(field, "1")
    assert not panel.start_button.disabled


def test_a_task_that_is_not_there_is_loud(make: Make, tiny_encoder: str):  # noqa: F811
    with pytest.raises(NotFound, match="no task or file"):
        SweepPanel(tiny_encoder, "rtt")


def test_every_number_in_a_field_is_read_back_as_it_was(make: Make):
    rates = (1e-4 * 2**0.5, 1 / 3000)
    assert {recipe.lr for recipe in make(lr=rates).recipes()} == set(rates)


def test_numbers_are_read_with_commas_and_ranges():
    assert numbers("seed", "0-2, 7", int) == [0, 1, 2, 7]
    assert numbers("lr", "5e-4,1e-3", float) == [5e-4, 1e-3]


# ---- nobody watching


def test_the_headless_cell_sweeps_and_says_what_came_of_it(swept: SweepPanel):
    assert len(swept.result()) == 8
    words = plain(swept.words.value)
    assert words.startswith("done : 8 done, 0 left, 0 failed.")
    assert "Validation chooses" in words
    assert "On the test rows it reaches" in words
    assert any(outcome in words for outcome in ("better by", "worse by", "equivalent within", "undecided:"))


def test_the_table_has_every_cell_and_every_seed(swept: SweepPanel):
    frame = swept.live.frame()
    table = plain(swept.table.value)
    assert table.count("lr 0.01") == 2
    for value in frame["validation_accuracy"]:
        assert f"{value:.1%}" in table
    assert "validation" in table  # chosen on validation, and it says so


def test_test_rows_are_spoken_of_for_the_chosen_cell_only(swept: SweepPanel):
    frame, words = swept.live.frame(), plain(swept.words.value)
    best = ranked(frame, "accuracy").index[0]
    own = frame[(frame["rank"] == best[1]) & (frame["lr"] == best[3])]
    assert f"it reaches {own['accuracy'].mean():.1%}" in words


def test_another_panel_on_the_store_shows_the_same_without_training(swept: SweepPanel):
    fields = {name: field.value for name, field in swept.fields.items()}
    again = SweepPanel(swept.model, swept.task, store=str(swept.store.folder), **swept.shared)
    for name, field in again.fields.items():
        field.value = fields[name]
    assert again.words.value == swept.words.value
    assert again.table.value == swept.table.value


def test_a_saved_notebook_shows_both_pictures_and_the_words(swept: SweepPanel):
    data, _ = swept._repr_mimebundle_()
    assert "Validation chooses" in data["text/plain"]
    whole, left = (imread(io.BytesIO(png)) for png in (base64.b64decode(data["image/png"]), swept.picture.value))
    assert whole.shape[1] > 1.5 * left.shape[1]
    for pixels in (whole, left, imread(io.BytesIO(swept.cell_picture.value))):
        assert pixels.shape[2] == 3  # no transparency: it reads on a dark theme too
        assert pixels.std() > 0.05  # and is not blank


def test_each_view_paints_and_a_cell_is_chosen_by_list_or_button(swept: SweepPanel):
    seen = set()
    for view in swept.view.options:
        swept.view.value = view
        seen.add(swept.picture.value)
    assert len(seen) == len(swept.view.options)
    swept.view.value = "rank x rate"
    curves = swept.cell_picture.value
    cell, button = list(swept.buttons.items())[-1]
    assert button.description.startswith("1, 0.01: ")  # rank, rate and value: a name that can be listened to
    assert button.description.endswith("%")
    button.click()
    assert swept.cell.value == cell
    assert button.button_style == "primary"
    swept.cell.value = next(iter(swept.buttons))
    assert swept.cell_picture.value != curves
    swept.cell.value = ()


def test_the_rank_is_chosen_where_a_view_does_not_show_it(swept: SweepPanel):
    swept.view.value = "alpha x rate"
    assert [text for text, _ in swept.where.options] == ["rank 1", "rank 4"]
    one = swept.table.value
    swept.where.value = swept.where.options[1][1]
    assert "rank 1" in plain(one)
    assert "rank 1" not in plain(swept.table.value)
    swept.view.value = "rank x rate"


def test_a_tick_without_news_paints_nothing(swept: SweepPanel):
    before = swept.picture.value, swept.cell_picture.value
    swept._paint()
    assert swept.picture.value is before[0]
    assert swept.cell_picture.value is before[1]


# ---- somebody watching


def test_start_returns_at_once_stop_keeps_and_start_goes_on(make: Make, watched: None):
    panel = make(steps=200, validations=20)
    with pytest.raises(BadValue, match="press Start"):
        panel.result()
    began = time.monotonic()
    panel.start_button.click()
    assert time.monotonic() - began < 2
    until(lambda: "step" in panel.words.value and panel.live.step() > 20)
    assert "8 runs side by side" in plain(panel.words.value)
    assert panel.fields["rank"].disabled
    panel.start()  # a second Start while one is going on does nothing
    panel.stop_button.click()
    until(lambda: not panel.start_button.disabled)
    assert "stopped : 0 done, 8 left" in plain(panel.words.value)
    reached = panel.live.step()
    first = panel.live.curves(panel.live.at_work())[0]
    panel.start_button.click()
    until(lambda: panel.live.state == "training")
    assert panel.live.step() > 10 * (reached // 10) - 10  # it goes on from the last validation
    until(lambda: not panel.start_button.disabled)
    assert "done : 8 done, 0 left" in plain(panel.words.value)
    assert len(first.steps) == reached
    assert [len(run.history["step"]) for run in panel.result().runs] == [200] * 8


def test_what_is_there_is_not_run_again(make: Make):
    panel = make(rank=1)
    panel.show()
    names = {file: file.stat().st_mtime_ns for file in panel.store.folder.glob("*.json")}
    assert len(names) == 4
    panel.fields["rank"].value = "1,2"
    assert "4 done, 4 left" in plain(panel.words.value)
    panel.start()
    assert panel.result().skipped == 4
    assert all(file.stat().st_mtime_ns == time_ for file, time_ in names.items())
    assert len(panel.store.runs()) == 8


def test_a_run_that_diverges_is_shown_and_its_cell_not_chosen(make: Make):
    panel = make(lr=(1e-3, 1e30), seed=0, rank=2, clip=0.0)
    panel.show()
    words = plain(panel.words.value)
    assert "1 done, 0 left, 1 failed (the first: the" in words
    assert "lower the rate" in words
    assert "lr 0.001" in words.split("chooses")[1]
    assert "1 failed" in plain(panel.table.value)


def test_two_sweeps_on_one_store_are_told_apart_in_words(make: Make, watched: None):
    first, second = make(steps=2000), make()
    first.start()
    until(lambda: first.live.state == "training")
    second.start()
    until(lambda: bool(second.live.error))
    until(lambda: "another sweep works on" in plain(second.words.value))
    first.stop()
    until(lambda: not first.live.alive)


def test_beside_another_training_it_waits_and_stop_gives_up(make: Make, watched: None):
    panel = make()
    with turn():  # this thread trains
        panel.start()
        until(lambda: "waiting for the other training" in plain(panel.words.value))
        panel.stop()
        until(lambda: "stopped : 0 done, 8 left" in plain(panel.words.value))
    assert not panel.start_button.disabled


def test_a_change_that_comes_while_it_sweeps_is_put_back(make: Make, watched: None):
    panel = make()
    with turn():  # so that it is at work for as long as this takes
        panel.start()
        live = panel.live
        panel.fields["steps"].value = "100"  # was on its way when Start was pressed
        panel.fields["rank"].value = "none"
        assert panel.live is live
        assert [panel.fields[name].value for name in ("steps", "rank")] == ["6", "1,4"]
        panel.stop()  # still ends it
        until(lambda: "stopped" in panel.words.value)
    panel.fields["steps"].value = "100"
    assert panel.live is not live


def test_a_store_with_a_broken_record_is_told_and_trained_into(make: Make, tmp_path: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "0123456789ab.json").write_text("{}")
    panel = make(rank=1, lr=1e-3, seed=0)
    assert "is not a run of lora_lab" in plain(panel.count.value)
    panel.start()
    assert "1 done" in plain(panel.words.value)


# ---- without widgets


def test_a_sweep_in_a_thread_fills_its_frame(make: Make):
    panel = make(rank=1)
    live = LiveSweep(panel.recipes(), panel.store, "accuracy", {})
    assert live.frame()["status"].tolist() == ["to come"] * 4
    assert live.best() is None
    assert live.seconds_left() is None
    live.start()
    live.wait(60)
    assert (live.state, live.error) == ("done", "")
    assert live.counts() == {"done": 4, "left": 0, "failed": 0}
    assert len(live.curves(live.best())) == 2
    known = facts_in(Store(panel.store.folder), "accuracy")
    assert known == live.known


def test_what_somebody_else_had_put_into_the_store_is_shown_too(make: Make):
    panel = make(rank=1)
    sweep(panel.recipes(), panel.store)  # after the panel has read the store
    panel.start()
    assert "4 done" in plain(panel.words.value)
    assert panel.result().skipped == 4


def test_a_stop_right_after_a_start_is_not_lost(make: Make):
    panel = make(steps=5000)
    live = LiveSweep(panel.recipes(), panel.store, "accuracy", {})
    live.start()
    live.stop()
    live.wait(60)
    assert live.state == "stopped"


def test_cells_with_few_seeds_or_a_failure_are_not_chosen(make: Make):
    recipes = Grid(rank=[1, 2, 4], seed=range(4)).recipes("minilm", "rt")
    live = LiveSweep(recipes, Store("none"), "accuracy", {})
    values = {1: [0.8, 0.8, 0.8, 0.8], 2: [0.9, 0.9, 0.9, None], 4: [0.95, None, None, None]}
    for name, recipe in live.recipes.items():
        value, failed = values[recipe.method.rank][recipe.seed], recipe.method.rank == 2
        status = "done" if value else "failed" if failed else "to come"
        live.known[name] = Facts(status, value, value)
    live.version += 1
    assert live.best()[1] == 1
    assert free(live.frame()) == ["rank"]


def test_text_of_a_failure_is_never_read_as_html(make: Make):
    panel = make(rank=1)
    panel.live.known[next(iter(panel.live.recipes))] = Facts("failed", error="<img src=x>")
    panel.live.version += 1
    panel._paint()
    assert "<img" not in panel.words.value
    assert "<img" not in json.dumps(panel.table.value)

"""The training panel without a browser: controls, counts, a run in a thread, Stop, errors, and the headless cell."""

from __future__ import annotations

import io
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from lora_lab import FullFineTuning, PromptTuning, load_task
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods import REGISTRY
from lora_lab.training import guard
from lora_lab.training.runs import Store
from lora_lab.training.turns import turn
from lora_lab.widgets.live import LiveRun
from lora_lab.widgets.panel import plain
from lora_lab.widgets.train_panel import TrainPanel
from lora_lab.widgets.words import mind_table, standing
from tests.training.conftest import tiny_encoder  # noqa: F401
from tests.widgets.conftest import until


@pytest.fixture
def panel(tmp_path: Path) -> TrainPanel:
    return TrainPanel(steps=20, store=str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few of the real sentences as a file: scoring all of them takes longer than what is tested here."""
    full, file = load_task("rt"), tmp_path_factory.mktemp("reviews") / "reviews.csv"
    labels = [full.labels[number] for number in full.train.labels[:400]]
    pd.DataFrame({"text": full.train.texts[:400], "label": labels}).to_csv(file, index=False)
    return str(file)


@pytest.fixture(scope="module")
def trained(reviews: str, tmp_path_factory: pytest.TempPathFactory) -> TrainPanel:
    """A panel whose cell ran with nobody watching, long enough to change its mind about something."""
    panel = TrainPanel(task=reviews, steps=80, store=str(tmp_path_factory.mktemp("runs")))
    panel.guess.value = 71
    return panel.show()


def test_the_count_follows_the_sliders(panel: TrainPanel):
    assert "73,728 parameters" in plain(panel.count.value)
    panel.controls.rank.value = 16
    assert "147,456 parameters" in plain(panel.count.value)
    panel.controls.target_box.children[1].value = True  # k as well
    assert "221,184 parameters" in plain(panel.count.value)
    assert "alpha / rank = 1." in plain(panel.count.value)


def test_any_method_can_be_chosen_at_a_rate_that_is_usual_for_it(panel: TrainPanel):
    for name in REGISTRY:
        panel.controls.name.value = name
        assert panel.recipe().method.name == name
        assert "cannot" not in plain(panel.count.value)
        assert (panel.controls.rank.layout.display == "none") == (name != "lora")
    panel.controls.name.value = "full"
    assert panel.lr.value == 5e-5
    assert "100.00% of the model's 22,713,986 train." in plain(panel.count.value)
    panel.controls.name.value = "prompt"
    assert panel.lr.value == 1e-2
    panel.controls.name.value = "lora"
    assert "73,728 parameters" in plain(panel.count.value)


def test_a_method_with_settings_of_its_own_is_kept(tmp_path: Path):
    panel = TrainPanel(method=PromptTuning(tokens=3), store=str(tmp_path / "runs"))
    assert panel.recipe().method == PromptTuning(tokens=3)
    assert "1,152 parameters" in plain(panel.count.value)


def test_full_fine_tuning_trains_in_the_panel(reviews: str, tmp_path: Path):
    panel = TrainPanel(
        task=reviews, method=FullFineTuning(), steps=2, batch=4, lr=5e-5, store=str(tmp_path / "runs")
    ).show()
    assert panel.result().status == "done"
    assert panel.table.value == ""


def test_a_slider_is_answered_without_painting(panel: TrainPanel):
    before = panel.picture.value
    panel.controls.rank.value = 32
    assert panel.picture.value is before


def test_no_target_is_said_in_words_and_not_trained(panel: TrainPanel):
    for box in panel.controls.target_box.children:
        box.value = False
    assert "tick at least one target" in panel.count.value
    panel.start()
    assert "tick at least one target" in panel.words.value
    assert panel.live is None


def test_a_run_that_does_not_fit_is_refused_before_it_starts(panel: TrainPanel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(guard.SWITCH, raising=False)
    monkeypatch.setattr(guard, "free_bytes", lambda _: 300 * 2**20)
    panel.batch = 512
    panel.start()
    words = plain(panel.words.value)
    assert "cannot do that" in words
    assert "what would fit is batch" in words
    assert panel.live is None
    assert not panel.start_button.disabled
    with pytest.raises(BadValue, match="GiB are free"):
        panel.show()


def test_another_model_brings_its_own_tasks_roles_and_unit(panel: TrainPanel):
    panel.model.value = "smollm2"
    assert panel.task.value == "kjv"
    assert "gate" in [box.description for box in panel.controls.target_box.children]
    assert "perplexity" in panel.guess.description
    assert "460,800 parameters in the adapter + 0 in the head" in plain(panel.count.value)
    panel.model.value = "minilm"
    assert (panel.task.value, panel.guess.description) == ("rt", "guess (%)")


def test_a_result_that_is_not_there_tells_what_to_press(panel: TrainPanel):
    with pytest.raises(BadValue, match="press Start"):
        panel.result()


def test_start_returns_at_once_and_stop_keeps_what_was_learned(reviews: str, tmp_path: Path):
    panel = TrainPanel(task=reviews, steps=800, store=str(tmp_path / "runs"))
    started = time.monotonic()
    panel.start_button.click()
    assert time.monotonic() - started < 2
    until(lambda: len(panel.live.progress) > 3)
    with pytest.raises(BadValue, match="still at work"):
        panel.result()
    panel.start()  # a second Start while one is going on does nothing
    panel.stop_button.click()
    until(lambda: "stopped" in panel.words.value)
    run = panel.result()
    assert run.status == "stopped"
    assert 3 < len(run.history["step"]) < 800
    assert Path(run.adapter, "adapter_model.safetensors").is_file()
    assert panel.start_button.disabled is False
    assert panel.stop_button.disabled is True


def test_beside_another_training_it_waits_and_stop_gives_up(panel: TrainPanel):
    with turn():  # this thread trains
        panel.start_button.click()
        until(lambda: "waiting for the other training" in plain(panel.words.value))
        panel.stop_button.click()
        until(lambda: "stopped before it began" in plain(panel.words.value))
    assert not panel.start_button.disabled
    with pytest.raises(BadValue, match="before it began; press Start"):
        panel.result()


def test_reset_clears_the_curve_and_keeps_the_run(trained: TrainPanel):
    other = TrainPanel(task=trained.task.value, steps=20, store=str(trained.store.folder))
    assert len(other._earlier()) == 1  # the finished run is drawn behind
    other.reset()
    assert "ready" in other.words.value
    assert len(Store(trained.store.folder).runs()) == 1


def test_a_record_is_read_once_and_one_that_is_damaged_is_passed_over(trained: TrainPanel, tmp_path: Path, monkeypatch):
    folder = tmp_path / "runs"
    shutil.copytree(trained.store.folder, folder)
    read, reads = Store.read, []
    monkeypatch.setattr(Store, "read", lambda store, name: reads.append(name) or read(store, name))
    panel = TrainPanel(task=trained.task.value, steps=20, store=str(folder))
    for steps in (50, 100, 200):
        panel.steps.value = steps
    panel.task.value = panel.task.options[0]
    panel.task.value = trained.task.value
    assert len(reads) == 1
    (folder / "0123456789ab.json").write_text("{")
    (folder / "ba9876543210.json").symlink_to(folder / "nowhere")  # a file that goes as it is looked at
    panel.steps.value = 400
    assert (len(panel.earlier), len(reads)) == (1, 2)
    Store(folder).add(replace(trained.result(), recipe=replace(trained.result().recipe, seed=5)))
    panel.steps.value = 800
    assert [one.label for one in panel.earlier] == [trained.result().recipe.describe(), panel.earlier[1].label]
    assert "seed 5" in panel.earlier[1].label
    assert len(reads) == 3


def test_a_model_of_ones_own_offers_the_roles_that_it_has(tiny_encoder: str, tmp_path: Path):  # noqa: F811
    panel = TrainPanel(tiny_encoder, "rt", store=str(tmp_path / "runs"))
    assert [box.description for box in panel.controls.target_box.children] == ["q", "k", "v", "o", "up", "down"]
    assert panel.controls.target_box.ticked == ("q", "v")
    panel.model.value = "smollm2"
    panel.model.value = tiny_encoder
    assert [box.description for box in panel.controls.target_box.children] == ["q", "k", "v", "o", "up", "down"]


GLUE = {  # a line of train.tsv and dev.tsv, without a header
    "cola": "gj04\t{}\t*\tSentence number {} goes on.",
    "sts-b": "{1}\tg\tf\t2012\t1\ts\ts\tA cat, number {1}.\tA dog.\t{0}.5",
}


@pytest.mark.parametrize(("name", "metric"), [("cola", "matthews"), ("sts-b", "pearson")])
def test_a_task_that_is_judged_by_a_correlation_trains(tiny_encoder: str, tmp_path: Path, name: str, metric: str):  # noqa: F811
    for split in ("train", "dev"):
        lines = "\n".join(GLUE[name].format(n % 2, n) for n in range(8))
        (tmp_path / f"{split}.tsv").write_text(lines + "\n")
    panel = TrainPanel(tiny_encoder, f"glue:{name}:{tmp_path}", steps=2, batch=4, store=str(tmp_path / "runs"))
    panel.guess.value = 40
    assert (panel.metric, panel.guessed) == (metric, 0.4)
    assert "cannot" not in plain(panel.count.value)
    words = plain(panel.show().words.value)
    assert words.startswith("done after")
    assert "points too" in words
    assert metric in panel.picture.alt
    assert panel.bar.value == panel.bar.max == 2


def test_a_task_that_is_not_there_is_loud():
    with pytest.raises(NotFound, match="no task or file"):
        TrainPanel(task="rtt")


def test_the_headless_cell_trains_and_says_what_came_of_it(trained: TrainPanel):
    run = trained.result()
    assert len(run.history["loss"]) == 80
    words = plain(trained.words.value)
    assert f"accuracy {run.metrics['accuracy']:.1%} on held-out test rows" in words
    assert "your guess was 71.0%" in words


def test_the_curve_has_the_validations_of_the_record_from_before_training_on(trained: TrainPanel):
    recorded = [(v["step"], v["accuracy"]) for v in trained.result().history["validation"]]
    assert trained.live.curve().validation == recorded
    assert recorded[0][0] == 0


def test_the_changes_of_mind_explain_the_gain_to_the_row(trained: TrainPanel):
    mind = trained.live.mind
    gain = (mind.with_adapter["accuracy"] - mind.without["accuracy"]) * mind.rows
    assert gain == pytest.approx(2 * mind.for_the_better - mind.changed)
    assert f"changed its mind on {mind.changed}" in plain(trained.table.value)
    for change in mind.examples:
        assert change.without != change.with_adapter


def test_a_saved_notebook_shows_the_picture_and_the_words(trained: TrainPanel):
    data, _ = trained._repr_mimebundle_()
    assert "on held-out test rows" in data["text/plain"]
    pixels = imread(io.BytesIO(trained.picture.value))
    assert pixels.shape[2] == 3  # opaque: it reads on a dark theme too
    assert pixels.std() > 0.05  # and is not blank


def test_an_error_in_the_thread_is_shown_not_lost(tmp_path: Path, panel: TrainPanel):
    panel.live = LiveRun(panel.recipe(), Store(tmp_path / "a file"))
    (tmp_path / "a file").write_text("not a folder")
    panel.live.start()
    panel.live.wait(60)
    panel._paint()
    assert "cannot write into" in panel.words.value


def test_text_of_the_data_is_never_read_as_html(trained: TrainPanel):
    mind = trained.live.mind
    hostile = replace(mind, examples=(replace(mind.examples[0], text="<img src=x onerror=alert(1)>"),))
    assert "<img" not in mind_table(hostile)


def test_the_guess_and_the_metric_are_those_of_the_start(trained: TrainPanel):
    before = trained.words.value
    trained.guess.value = 99
    trained._paint()
    assert trained.words.value == before


def test_a_guess_whose_slider_nobody_moved_is_no_guess(trained: TrainPanel):
    fresh = TrainPanel(task=trained.task.value, steps=20, store=str(trained.store.folder))
    assert fresh._prepare().guess is None
    fresh.guess.value = 64
    assert fresh._prepare().guess == 0.64
    done = replace(trained.live, guess=None)
    done.state = trained.live.state
    assert "no guess was made" in standing(done)[1]


def test_a_stopped_run_does_not_take_a_finished_ones_place(trained: TrainPanel):
    again = LiveRun(trained.recipe(), trained.store)
    again.stop()
    again.work()
    assert again.state == "stopped"
    assert again.run.adapter is None
    assert [run.status for run in trained.store.runs()] == ["done"]

"""The training panel without a browser: the count, a run in a thread, Stop and going on, and what it found."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from lora_lab import BitFit, FullFineTuning, LoRA, Recipe, TrainPanel
from lora_lab.errors import BadValue
from lora_lab.methods import REGISTRY
from lora_lab.methods.ia3 import IA3
from lora_lab.training import memory_check
from lora_lab.training.loop import Progress
from lora_lab.training.runs import Store
from lora_lab.training.watching import training_lock
from lora_lab.widgets.live_run import LiveRun
from lora_lab.widgets.sweep_panel import LiveSweep
from tests.widgets.conftest import until

pytestmark = pytest.mark.filterwarnings("ignore:lr 0.05 is far above")
Make = Callable[..., TrainPanel]


@pytest.fixture(scope="module")
def make(tiny_encoder: str, opinions: str, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`make(steps=4)`: a panel over a run that takes a moment; each has a store of its own."""

    def panel(**changes: Any) -> TrainPanel:
        given = {"model": tiny_encoder, "task": opinions, "steps": 40, "lr": 5e-2, "batch": 8, "validations": 4}
        return TrainPanel(**given | {"store": tmp_path_factory.mktemp("runs")} | changes)

    return panel


@pytest.fixture(scope="module")
def trained(make: Make) -> TrainPanel:
    """A panel whose cell ran with nobody watching, long enough to change some answers; nothing changes it."""
    return make(guess=71).show()


# ---- what would train


def test_the_count_follows_the_settings_in_python_and_in_the_browser(tmp_path: Path):
    panel = TrainPanel(store=tmp_path / "runs")
    for rank, targets in ((8, ["q", "v"]), (16, ["q", "v"]), (16, ["q", "k", "v"]), (4, ["up", "o"])):
        panel.rank, panel.targets = rank, targets
        assert panel.setup["trains"] == rank * sum(panel.setup["roles"][one] for one in targets)  # as the browser does
    panel.rank, panel.targets = 8, ["q", "v"]
    assert (panel.setup["trains"], panel.setup["head"], panel.setup["plain"]) == (73_728, 770, True)
    assert not TrainPanel(store=tmp_path / "runs", method=LoRA(dora=True)).setup["plain"]  # it has more than A and B
    assert TrainPanel(store=tmp_path / "runs", targets="all-linear").targets == ["all-linear"]  # as LoRA's


def test_any_method_can_be_chosen_and_begins_at_its_usual_rate(tmp_path: Path):
    panel = TrainPanel(store=tmp_path / "runs")
    for name in REGISTRY:
        panel.method = name
        assert panel.recipe().method.name == name
        assert panel.setup["trains"] >= 0, name
    panel.method = "full"
    assert (panel.lr, panel.setup["trains"] + panel.setup["head"]) == (5e-5, 22_713_986)
    panel.method = "prompt"
    assert panel.lr == 1e-2
    assert panel.lr in panel.offers["rates"]


def test_another_model_brings_its_own_tasks_roles_and_metric(tiny_encoder: str, tmp_path: Path):
    panel = TrainPanel(store=tmp_path / "runs")
    panel.model = "smollm2"
    assert (panel.task, panel.setup["metric"]) == ("kjv", "perplexity")
    assert "gate" in panel.setup["roles"]
    assert (panel.setup["trains"], panel.setup["head"]) == (460_800, 0)
    panel.model = "minilm"
    assert (panel.task, panel.setup["metric"], panel.setup["chance"]) == ("rt", "accuracy", 50)
    own = TrainPanel(tiny_encoder, "rt", store=tmp_path / "runs")
    assert list(own.setup["roles"]) == ["q", "k", "v", "o", "up", "down"]


def test_what_cannot_be_is_said_and_not_trained(make: Make, monkeypatch: pytest.MonkeyPatch):
    panel = make()
    panel.targets = []
    assert "tick at least one target" in panel.setup["error"]
    panel.start()
    assert "tick at least one target" in panel.live["error"]
    assert panel.work is None
    monkeypatch.delenv(memory_check.SWITCH, raising=False)
    monkeypatch.setattr(memory_check, "free_bytes", lambda _: 300 * 2**20)
    large = make(model="minilm", task="rt", batch=512)
    with pytest.raises(BadValue, match="GiB is free"):
        large.show()
    with pytest.raises(BadValue, match="steps"):
        make(steps=0)


# ---- a run


def test_the_cell_with_nobody_watching_trains_and_says_what_came_of_it(trained: TrainPanel):
    run, found = trained.result(), trained.found
    recorded = [[v["step"], pytest.approx(100 * v["accuracy"], abs=1e-3)] for v in run.history["validation"]]
    assert trained.live["checks"] == recorded
    assert recorded[0][0] == 0
    assert trained.live["losses"] == pytest.approx(run.history["loss"], abs=1e-4)
    assert found["value"] == 100 * run.metrics["accuracy"]
    assert (found["rows"], found["steps"], trained.live["guess"]) == (16, 40, 71)
    p = run.metrics["accuracy"]
    assert found["half"] == pytest.approx(196 * (p * (1 - p) / 16) ** 0.5)
    assert found["low"] <= found["value"] <= found["high"] <= 100
    assert f"accuracy {found['value']:.1f}" in trained.describe()
    assert Path(found["adapter"], "adapter_model.safetensors").is_file()
    gain = (found["with"] - found["without"]) * found["of"] / 100
    assert gain == pytest.approx(2 * found["better"] - found["changed"])  # the changed answers explain it to the row
    assert len(json.dumps(trained.state())) < 100_000


def test_what_moved_is_the_update_over_the_weight(trained: TrainPanel):
    layers = [part for part in trained.work.trainer.model.modules() if hasattr(part, "lora_A")]
    shares = [(one.delta_weight().norm() / one.frozen_weight().float().norm()).item() for one in layers]
    assert [share for _, _, share in trained.live["moved"]] == pytest.approx(shares, rel=1e-3)
    assert [(layer, role) for layer, role, _ in trained.live["moved"]] == [(0, "q"), (0, "v"), (1, "q"), (1, "v")]


@pytest.mark.parametrize(
    ("method", "moved", "strengths"), [(FullFineTuning(), False, 0), (IA3(), True, 2), (BitFit(), False, 2)]
)
def test_other_methods_train_and_are_on_or_off(make: Make, method: Any, moved: bool, strengths: int):
    panel = make(method=method, steps=4, lr=1e-3).show()
    assert panel.result().status == "done"
    assert bool(panel.live["moved"]) == moved
    assert len(panel.found.get("strengths", ())) == strengths


def test_the_dial_goes_from_the_base_s_answer_to_the_adapter_s(trained: TrainPanel):
    found = trained.found
    assert found["sentences"]
    for one in found["sentences"]:
        answers = [found["labels"][int(np.argmax(p))] for p in one["p"]]
        assert answers[0] == one["without"]
        assert answers[found["strengths"].index(1.0)] == one["with_adapter"]
        assert np.allclose(np.sum(one["p"], -1), 1, atol=1e-3)
    assert (found["strengths"][0], found["strengths"][-1]) == (0, 2)


def test_a_language_model_is_judged_by_perplexity_and_has_no_dial(make: Make, tiny_causal: str, tmp_path: Path):
    prose = tmp_path / "prose.txt"
    prose.write_text("\n\n".join(f"Paragraph {n}. " + "The rain fell on the long road. " * 20 for n in range(20)))
    panel = make(model=tiny_causal, task=str(prose), steps=4, lr=1e-3, guess=50).show()
    assert panel.found["value"] == panel.result().metrics["perplexity"]
    assert panel.live["checks"][0][1] == pytest.approx(panel.result().history["validation"][0]["perplexity"], abs=1e-3)
    assert not {"half", "changed", "strengths"} & panel.found.keys()
    assert "perplexity" in panel.describe()


# ---- Start, Stop, go on


def test_a_run_that_goes_on_ends_where_it_would_have_ended(make: Make, watched: None):
    whole, halved = make(steps=250), make(steps=250)  # long enough to be stopped
    whole.start()
    until(lambda: not whole.live["busy"])
    halved.start()
    until(lambda: halved.live.get("step", 0) > 2)
    halved.stop()
    until(lambda: not halved.live["busy"])
    assert halved.result().status == "stopped"
    halved.start()
    until(lambda: halved.live["state"] == "done" and not halved.live["busy"])
    assert halved.result().history["loss"] == whole.result().history["loss"]
    assert halved.result().metrics == whole.result().metrics
    assert [run.status for run in halved.store.runs()] == ["done"]


def test_a_run_for_which_there_was_no_room_stays_in_the_panel_and_start_stores_it(make: Make, monkeypatch):
    panel = make()
    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
        panel.start()
    assert "free disk space" in panel.live["error"]
    work, losses = panel.work, panel.live["losses"]
    assert panel.store.runs() == []
    panel.start()
    assert (panel.work, panel.live["losses"]) == (work, losses)  # it wasn't trained again
    assert [run.metrics for run in panel.store.runs()] == [panel.result().metrics]


def test_a_night_asleep_does_not_stay_in_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On Windows the clock goes on while a laptop sleeps."""
    recipe, now = Recipe("minilm", "rt", steps=1400), [0.0]
    run, swept = LiveRun(recipe, Store(tmp_path)), LiveSweep([recipe], Store(tmp_path))
    run._next_measurement = math.inf
    swept._note("pack", {"recipes": [recipe]})
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for step in range(1, 1301):
        now[0] += 30_000 if step == 200 else 1
        run._on_step(Progress(step, 1400, 0.5, 1e-3))
        swept._note("step", {"recipe": recipe, "progress": run.progress[-1]})
    assert (run.seconds_left(), swept.seconds_left()) == (100, 100)


def test_beside_another_training_it_waits_and_stop_gives_up(make: Make, watched: None):
    panel = make()
    with training_lock():  # this thread trains
        panel.start()
        until(lambda: "waiting for the other training" in panel.live["state"])
        panel.stop()
        until(lambda: panel.live["state"] == "stopped" and not panel.live["busy"])
    with pytest.raises(BadValue, match="before it began; press Start"):
        panel.result()
    assert panel.found == {}


def test_an_error_in_the_thread_is_shown_not_lost(make: Make, tmp_path: Path, watched: None):
    (tmp_path / "a file").write_text("not a folder")
    panel = make(store=tmp_path / "a file")
    panel.start()
    until(lambda: bool(panel.live.get("error")))
    until(lambda: not panel.live["busy"])
    assert "cannot write into" in panel.live["error"]
    with pytest.raises(BadValue, match="cannot write into"):
        panel.result()


# ---- beside it


def test_other_seeds_are_a_ribbon_and_other_recipes_lines(trained: TrainPanel, make: Make, tmp_path: Path):
    folder = tmp_path / "runs"
    shutil.copytree(trained.store.folder, folder)
    done = trained.result()
    for seed in (1, 2):
        Store(tmp_path / "seeds").add(replace(done, recipe=replace(done.recipe, seed=seed, validations=seed)))
    Store(folder).add(replace(done, recipe=replace(done.recipe, seed=3), status="stopped"))
    panel = make(store=folder, seeds=tmp_path / "seeds", seed=7)
    assert [one["value"] for one in panel.setup["others"]] == [trained.found["value"]] * 3
    assert panel.setup["others"][0]["checks"] == trained.live["checks"]
    assert panel.setup["earlier"] == []
    panel.lr = 1e-3
    assert panel.setup["others"] == []
    assert [one["label"] for one in panel.setup["earlier"]] == ["lr 0.05, seed 0"]  # those of `seeds` are no lines
    assert make(store=folder).setup["others"] == []  # a run is not one of its other seeds


def test_a_stopped_run_does_not_take_a_finished_one_s_place(
    trained: TrainPanel, make: Make, watched: None, tmp_path: Path
):
    shutil.copytree(trained.store.folder, tmp_path / "runs")
    again = make(store=tmp_path / "runs", steps=40)
    again.start()
    again.stop()
    until(lambda: not again.live["busy"])
    assert again.work.state in ("stopped", "done")
    assert [run.status for run in again.store.runs()] == ["done"]

import gc
import json
import math
import shutil
import threading
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock
from weakref import ref

import numpy as np
import pytest

from lora_lab import IA3, BitFit, FullFineTuning, LoRA, Recipe, Store, TrainPanel
from lora_lab.methods import REGISTRY
from lora_lab.training import memory_check
from lora_lab.training.member import Progress
from lora_lab.training.watching import training_lock
from lora_lab.widgets import base
from lora_lab.widgets.live_run import LiveRun
from lora_lab.widgets.sweep_panel import LiveSweep
from tests.conftest import assert_raises, said, until

pytestmark = pytest.mark.filterwarnings("ignore:lr 0.05 is far above")


@pytest.fixture(scope="module")
def make(tiny_encoder, opinions, tmp_path_factory):
    """`make(steps=4)`: a panel for a short run, with its own store."""

    def panel(**changes) -> TrainPanel:
        fields = {"model": tiny_encoder, "task": opinions, "steps": 40, "lr": 5e-2, "batch": 8, "validations": 4}
        return TrainPanel(**fields | {"store": tmp_path_factory.mktemp("runs")} | changes)

    return panel


@pytest.fixture(scope="module")
def trained(make) -> TrainPanel:
    """A panel after a headless run that changes some predictions. Tests must not modify it."""
    return make(guess=71).show()


def test_settings_decide_parameters_task_roles_and_metric(tiny_encoder, tmp_path):
    panel = TrainPanel(store=tmp_path)
    for rank, targets in ((16, ["q", "k", "v"]), (4, ["up", "o"]), (8, ["q", "v"])):
        panel.rank, panel.targets = rank, targets
        assert panel.setup["trains"] == rank * sum(panel.setup["roles"][target] for target in targets)  # as in js
    assert (panel.setup["trains"], panel.setup["head"], panel.setup["plain"]) == (73_728, 770, True)
    assert not TrainPanel(store=tmp_path, method=LoRA(dora=True)).setup["plain"]  # it has more than A and B
    assert TrainPanel(store=tmp_path, targets="all-linear").targets == ["all-linear"]
    panel.model = "smollm2"
    assert (panel.task, panel.setup["metric"]) == ("kjv", "perplexity")
    assert "gate" in panel.setup["roles"]
    assert (panel.setup["trains"], panel.setup["head"]) == (460_800, 0)
    panel.model = "minilm"
    assert (panel.task, panel.setup["metric"], panel.setup["chance"]) == ("rt", "accuracy", 50)
    own = TrainPanel(Path(tiny_encoder), "rt", store=tmp_path)
    assert list(own.setup["roles"]) == ["q", "k", "v", "o", "up", "down"]


def test_every_method_can_be_chosen_and_sets_its_usual_rate(tmp_path):
    panel = TrainPanel(store=tmp_path)
    for name in REGISTRY:
        panel.method = name
        assert panel.recipe().method.name == name
        assert panel.setup["trains"] >= 0, name
    panel.method = "full"
    assert (panel.lr, panel.setup["trains"] + panel.setup["head"]) == (5e-5, 22_713_986)
    panel.method = "prompt"
    assert panel.lr == 1e-2
    assert panel.lr in panel.offers["rates"]


def test_impossible_settings_are_reported(make, monkeypatch):
    panel = make()
    panel.targets = []
    assert "tick at least one target" in panel.setup["error"]
    said(panel, "run")
    assert "tick at least one target" in panel.live["error"]
    assert panel.work is None
    monkeypatch.delenv(memory_check.SWITCH, raising=False)
    monkeypatch.setattr(memory_check, "free_bytes", lambda _: 300 * 2**20)
    assert_raises("GiB is free", make(model="minilm", task="rt", batch=512).show)
    for name in ("model", "method"):
        assert_raises(f"^{name}", setattr, panel, name, "unknown")
    assert "hold" in make(model="minilm", task="rt", rank=9999).describe()  # says why it cannot be trained
    for wrong in ({"steps": 0}, {"steps": 10.9}, {"seed": 1.9}, {"lr": "2e-3"}):
        assert_raises(f"^({'|'.join(wrong)})", make, **wrong)


def test_headless_panel_trains_and_describes_result_weights_and_strengths(trained):
    run, found = trained.result(), trained.found
    checks = [[v["step"], pytest.approx(100 * v["accuracy"], abs=1e-3)] for v in run.history["validation"]]
    assert trained.live["checks"] == checks
    assert checks[0][0] == 0
    assert trained.live["losses"] == pytest.approx(run.history["loss"], abs=1e-4)
    assert (found["rows"], found["steps"], trained.live["guess"]) == (16, 40, 71)
    p = run.metrics["accuracy"]
    assert found["value"] == 100 * p
    assert found["half"] == pytest.approx(196 * (p * (1 - p) / 16) ** 0.5)
    assert found["low"] <= found["value"] <= found["high"] <= 100
    assert f"accuracy {found['value']:.1f}" in trained.describe()
    assert Path(found["adapter"], "adapter_model.safetensors").is_file()
    gain = (found["with"] - found["without"]) * found["of"] / 100
    assert gain == pytest.approx(2 * found["better"] - found["changed"])  # the changes explain the gain exactly
    assert len(json.dumps(trained.state())) < 100_000
    layers = [part for part in trained.work.trainer.model.modules() if hasattr(part, "lora_A")]
    expected = [(layer.delta_weight().norm() / layer.frozen_weight().float().norm()).item() for layer in layers]
    assert [share for _, _, share in trained.live["moved"]] == pytest.approx(expected, rel=1e-3)  # |dW| / |W|
    assert [(layer, role) for layer, role, _ in trained.live["moved"]] == [(0, "q"), (0, "v"), (1, "q"), (1, "v")]
    assert (found["strengths"][0], found["strengths"][-1]) == (0, 2)
    assert found["sentences"]
    for sentence in found["sentences"]:
        answers = [found["labels"][int(np.argmax(p))] for p in sentence["p"]]
        assert answers[0] == sentence["without"]
        assert answers[found["strengths"].index(1.0)] == sentence["with_adapter"]
        assert np.allclose(np.sum(sentence["p"], -1), 1, atol=1e-3)


def test_other_methods_are_only_on_or_off(make):
    for method, moved, strengths in ((FullFineTuning(), False, 0), (IA3(), True, 2), (BitFit(), False, 2)):
        panel = make(method=method, steps=4, lr=1e-3).show()
        assert panel.result().status == "done"
        assert bool(panel.live["moved"]) == moved
        assert len(panel.found.get("strengths", ())) == strengths


def test_language_model_has_perplexity_and_no_dial(make, tiny_causal, tmp_path):
    prose = tmp_path / "prose.txt"
    prose.write_text("\n\n".join(f"Paragraph {n}. " + "The rain fell on the long road. " * 20 for n in range(20)))
    panel = make(model=tiny_causal, task=str(prose), steps=4, lr=1e-3, guess=50).show()
    assert panel.found["value"] == panel.result().metrics["perplexity"]
    assert panel.live["checks"][0][1] == pytest.approx(panel.result().history["validation"][0]["perplexity"], abs=1e-3)
    assert not {"half", "changed", "strengths"} & panel.found.keys()
    assert "perplexity" in panel.describe()


def test_stopped_run_resumes_exactly_and_never_replaces_a_finished_one(make, watched, monkeypatch):
    on_step = LiveRun._on_step

    def run(panel: TrainPanel, stop_at: int | None = None) -> str:
        def stopping(work: LiveRun, progress: Progress) -> None:
            on_step(work, progress)
            if progress.step == stop_at:
                panel.stop()

        monkeypatch.setattr(LiveRun, "_on_step", stopping)
        said(panel, "run")
        until(lambda: not panel.work.alive)
        return panel.result().status

    whole, halved = (make(steps=12, method=LoRA(dropout=0.3)) for _ in range(2))
    assert run(whole) == "done"
    assert run(halved, stop_at=5) == "stopped"
    assert len(halved.result().history["step"]) == 5
    said(halved, "run")
    until(lambda: not halved.work.alive)
    assert halved.result().history["loss"] == whole.result().history["loss"]
    assert halved.result().metrics == whole.result().metrics
    assert run(make(steps=12, method=LoRA(dropout=0.3), store=halved.store.folder), stop_at=5) == "stopped"
    assert [stored.status for stored in halved.store.runs()] == ["done"]


def test_run_that_could_not_be_stored_is_stored_by_start(make, monkeypatch):
    panel = make()
    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
        said(panel, "run")
    assert "free disk space" in panel.live["error"]
    assert_raises("free disk space", panel.result)
    work, losses = panel.work, panel.live["losses"]
    assert panel.store.runs() == []
    said(panel, "run")
    assert (panel.work, panel.live["losses"]) == (work, losses)  # it was not trained again
    assert [run.metrics for run in panel.store.runs()] == [panel.result().metrics]


def test_estimate_forgets_that_the_laptop_slept(tmp_path, monkeypatch):
    """On Windows, the monotonic clock includes sleep."""
    recipe, now = Recipe("minilm", "rt", steps=1400), [0.0]
    run, swept = LiveRun(recipe, Store(tmp_path)), LiveSweep([recipe], Store(tmp_path))
    run._next_measurement = math.inf
    swept._on_event("pack", {"recipes": [recipe]})
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for step in range(1, 1301):
        now[0] += 30_000 if step == 200 else 1
        run._on_step(Progress(step, 1400, 0.5, 1e-3))
        swept._on_event("step", {"recipe": recipe, "progress": run.progress[-1]})
    assert run.snapshot()["left"] == swept.seconds_for(swept.steps_left()) == 100


def test_cell_that_is_run_again_stops_its_earlier_panels(make, watched, monkeypatch):
    message = {"metadata": {"cellId": "a"}, "header": {"msg_id": "1"}}
    shell = SimpleNamespace(get_parent=lambda: message)
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    first, _ = make(steps=2000), make()  # a second panel in the same cell stops no run
    first.run()
    assert first.busy
    message["header"], work = {"msg_id": "2"}, first.work
    make()
    until(lambda: not work.alive)
    assert work.run is None or work.run.status == "stopped"
    work = ref(work)
    until(lambda: gc.collect() and work() is None)  # it would keep a model in memory


def test_run_waits_for_another_and_can_be_stopped(make, watched):
    panel = make()
    with training_lock():
        said(panel, "run")
        until(lambda: "waiting for the other training" in panel.live["state"])
        panel.stop()
        until(lambda: panel.live["state"] == "stopped" and not panel.live["busy"])
    assert_raises("before it began; press Start", panel.result)
    assert panel.found == {}


def test_other_seeds_and_earlier_recipes_are_shown(trained, make, tmp_path):
    folder = tmp_path / "runs"
    shutil.copytree(trained.store.folder, folder)
    run = trained.result()
    for seed in (1, 2):
        Store(tmp_path / "seeds").add(replace(run, recipe=replace(run.recipe, seed=seed, validations=seed)))
    Store(folder).add(replace(run, recipe=replace(run.recipe, seed=3), status="stopped"))
    for seeds in (tmp_path / "seeds", shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "seeds")):
        panel = make(store=folder, seeds=seeds, seed=7)
        assert [other["value"] for other in panel.setup["others"]] == [trained.found["value"]] * 3
    assert panel.setup["others"][0]["checks"] == trained.live["checks"]
    assert panel.setup["earlier"] == []
    panel.lr = 1e-3
    assert panel.setup["others"] == []
    assert [line["label"] for line in panel.setup["earlier"]] == ["lr 0.05, seed 0"]  # none from `seeds`
    assert make(store=folder).setup["others"] == []  # a run is not among its own other seeds
    assert make(store=folder).result().metrics == run.metrics  # a run of an earlier kernel is found again
    file = Path(run.recipe.task)
    rows = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(rows[:-1]), encoding="utf-8")
    panel = make(store=folder, seeds=tmp_path / "seeds", seed=7)
    assert (panel.setup["others"], panel.setup["earlier"]) == ([], [])  # they were trained on another file
    panel.seed = run.recipe.seed
    assert_raises("press Start", panel.result)
    file.write_text("".join(rows), encoding="utf-8")
    panel.seeds = None  # reads the stores, and the file, again
    assert panel.result().metrics == run.metrics


class Waiting(base.Background):
    def _work(self) -> None:
        self.state = "stopped" if self._stop.wait(0.2) else "done"


def test_paint_error_is_shown_and_painting_continues(monkeypatch, watched):
    monkeypatch.setattr(base, "PAINTS_PER_SECOND", 100)
    work, errors, numbers, painted, panel = Waiting(), set[str](), count(1), list[int](), base.LivePanel()
    panel.observe(lambda change: errors.add(change["new"]["error"]), "live")

    def paint(work, busy):
        if (number := next(numbers)) == 2 or not busy:
            raise ValueError("no <room>")
        painted.append(number)
        return {}

    monkeypatch.setattr(panel, "_paint", paint)
    work.stop()  # too early: `stop` only stops work that has begun
    panel._begin(work)
    for thread in threading.enumerate():
        if thread.name == "lora-lab-paint":
            thread.join(20)
    live = panel.live
    assert (work.state, live["state"], live["busy"]) == ("done", "done", False)  # the last paint failed, too
    assert painted[:2] == [1, 3]
    assert len(painted) > 3
    assert errors == {"", panel.live["error"]} == {"", "ValueError: no <room>"}

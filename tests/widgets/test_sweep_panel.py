"""The playground without a browser: what it begins with, training in a thread, Stop, and what it says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_lab import SweepPanel
from lora_lab.errors import BadValue, NotFound
from lora_lab.experiments.sweep import sweep
from lora_lab.training.assets import shipped
from lora_lab.training.runs import Store
from lora_lab.training.turns import turn
from lora_lab.widgets.live_sweep import LiveSweep
from tests.training.conftest import PLAIN, opinions, tiny_encoder, tiny_models  # noqa: F401
from tests.widgets.conftest import until

STORE = shipped("data/results/sweeps/rate_rank_alpha")
ALL = [[rank, 16.0, lr] for rank in (1, 4) for lr in (1e-3, 1e-2)]
Make = Callable[..., SweepPanel]


@pytest.fixture
def make(tiny_encoder: str, opinions: str, tmp_path: Path) -> Make:  # noqa: F811
    """`make(rank=(1, 2))`: a panel over a small grid of runs that take a moment."""

    def panel(**changes: Any) -> SweepPanel:
        grid: dict[str, Any] = {"rank": (1, 4), "alpha": 16.0, "lr": (1e-3, 1e-2), "seed": (0, 1), "steps": 6}
        given = {**grid, "validations": 2, "picked": ALL, **PLAIN, **changes}
        return SweepPanel(tmp_path / "runs", model=tiny_encoder, task=opinions, **given)

    return panel


def said(panel: SweepPanel, does: str) -> None:
    """A button of the browser."""
    panel._handle_custom_msg({"do": does}, [])


def values(panel: SweepPanel) -> list[float]:
    return [run["value"] for run in panel.data["runs"]]


# ---- what it begins with


def test_what_ships_is_shown_where_nothing_else_is_asked_for(tmp_path: Path):
    panel = SweepPanel(into=tmp_path / "runs")
    assert len(panel.data["runs"]) >= 100
    assert (panel.rank, panel.alpha, panel.lr) == panel.best[1:]
    words = panel.describe()
    assert f"rate {panel.lr:g}" in words
    assert panel.data["about"] in words
    assert len(panel.losses) == 40 * len(panel.data["runs"])
    assert len(json.dumps(panel.state())) < 200_000


def test_a_store_is_shown_as_it_is_and_one_s_own_runs_join_those_that_ship(tmp_path: Path):
    own = SweepPanel(STORE)
    assert own.store.folder == STORE
    assert len(own.data["runs"]) == 112
    both = SweepPanel(into=STORE)
    assert len(both.data["runs"]) == 112  # all that ship are among them
    with pytest.raises(NotFound, match="no folder"):
        SweepPanel(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadValue, match="task="):
        SweepPanel(tmp_path / "empty")


def test_of_a_store_of_several_tasks_one_is_named(make: Make, tmp_path: Path):
    make(picked=[[1, 16.0, 1e-3]]).run()
    other = SweepPanel(tmp_path / "runs", task="rt", steps=200)
    assert other.data["runs"] == []
    assert other.best is None
    assert "Nothing is trained" in other.describe()
    assert len(make(picked=()).data["runs"]) == 2


def test_what_cannot_be_is_one_sentence(make: Make):
    with pytest.raises(BadValue, match="rank"):
        make(rank=0)
    with pytest.raises(BadValue, match="targets"):
        SweepPanel(STORE, targets="q,k")
    panel = make(picked=[[4096, 16.0, 1e-3]])
    with pytest.raises(BadValue, match="at most 32"):
        panel.run()
    assert not list(panel.store.folder.glob("*.json"))
    with pytest.raises(BadValue, match="nothing is picked"):
        make(picked=()).run()


# ---- nobody watching


def test_headless_it_trains_here_and_now_and_the_map_has_the_runs(make: Make, tmp_path: Path):
    panel = make()
    panel.run()
    assert panel.live["state"] == "done"
    assert panel.picked == []
    frame = {(run.recipe.method.rank, run.recipe.lr, run.recipe.seed): run for run in panel.store.runs()}
    assert len(frame) == 8
    for cell in panel.data["cells"]:
        own = [frame[cell["rank"], cell["lr"], seed].history["validation"][-1]["accuracy"] for seed in (0, 1)]
        assert cell["mean"] == pytest.approx(50 * sum(own), abs=0.01)
    (other,) = sweep([panel.playground.recipe_of(_cells(make())[0], 0)], tmp_path / "other").runs
    live = frame[1, 1e-3, 0].history["validation"]
    for there, here in zip(other.history["validation"], live, strict=True):  # step 0 too, though it is scored last
        assert here == pytest.approx(there, rel=1e-3)
    again = make(picked=())
    assert sorted(values(again)) == sorted(values(panel))
    with pytest.raises(BadValue, match="has been trained"):
        make().run()


def test_a_run_that_diverges_is_a_failure_on_the_map(make: Make):
    panel = make(picked=[[1, 16.0, 1e-3], [1, 16.0, 1e30]], clip=0.0)
    panel.run()
    states = {cell["lr"]: [panel.data["runs"][n]["state"] for n in cell["runs"]] for cell in panel.data["cells"]}
    assert states[1e30] == ["failed", "failed"]
    assert panel.best.lr == 1e-3


# ---- somebody watching


def test_run_returns_at_once_stop_keeps_and_run_goes_on(make: Make, watched: None):
    panel = make(steps=200, validations=20)
    heard: list[dict[str, Any]] = []
    panel.observe(lambda change: heard.append(change["new"]), "live")
    began = time.monotonic()
    said(panel, "run")
    assert time.monotonic() - began < 2
    until(lambda: panel.live.get("step", 0) > 20)
    assert {(rank, alpha, lr) for rank, alpha, lr, _ in panel.live["curves"]} == {tuple(cell) for cell in ALL}
    said(panel, "run")  # a second one while one is going on does nothing
    said(panel, "stop")
    until(lambda: panel.live["state"] == "stopped" and not panel.live["busy"])
    reached = panel.work.step()
    assert panel.picked == ALL
    said(panel, "run")
    until(lambda: panel.live["state"] == "training")
    assert panel.work.step() > 10 * (reached // 10) - 10  # it goes on from the last validation
    until(lambda: panel.live["state"] == "done" and not panel.live["busy"])
    assert [len(run.history["step"]) for run in panel.store.runs()] == [200] * 8
    shares = [one["share"] for one in heard if one["state"] == "training"]
    assert max(shares) > 0.5
    assert panel.picked == []


def test_an_error_is_shown_in_the_panel(make: Make, watched: None):
    first, second = make(steps=2000), make()
    first.run()
    until(lambda: first.work.state == "training")
    second.run()
    until(lambda: "another sweep works on" in second.live.get("error", ""))
    first.stop()
    until(lambda: not first.work.alive)
    second.picked = []
    said(second, "run")
    assert "nothing is picked" in second.live["error"]


def test_beside_another_training_it_waits_and_stop_gives_up(make: Make, watched: None):
    panel = make()
    with turn():  # this thread trains
        panel.run()
        until(lambda: panel.live["state"] == "waiting for the other training")
        panel.stop()
        until(lambda: panel.live["state"] == "stopped")
    assert values(panel) == []


# ---- without widgets


def test_what_somebody_else_had_put_into_the_store_is_there_too(make: Make):
    panel = make()
    recipes = [panel.playground.recipe_of(pg_cell, 0) for pg_cell in _cells(panel)]
    sweep(recipes, panel.store)
    live = LiveSweep(recipes, Store(panel.store.folder))
    live.start()
    live.wait(60)
    assert (live.state, live.error, live.left) == ("done", "", set())
    assert {run.recipe.hash for run in live.ended} == {recipe.hash for recipe in recipes}


def test_a_stop_right_after_a_start_is_not_lost(make: Make):
    panel = make(steps=5000)
    live = LiveSweep([panel.playground.recipe_of(cell, 0) for cell in _cells(panel)], panel.store)
    live.start()
    live.stop()
    live.wait(60)
    assert live.state == "stopped"


def _cells(panel: SweepPanel) -> list[Any]:
    from lora_lab.experiments.playground import Cell

    return [Cell("q,v", rank, alpha, lr) for rank, alpha, lr in panel.picked]

"""The playground without a browser: what it shows at first, training, and what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_lab import SweepPanel
from lora_lab.errors import BadValue
from lora_lab.experiments.playground import Cell
from lora_lab.experiments.sweep import sweep
from tests.conftest import PLAIN
from tests.widgets.conftest import said, until

ALL = [[rank, 16.0, lr] for rank in (1, 4) for lr in (1e-3, 1e-2)]
Make = Callable[..., SweepPanel]


@pytest.fixture
def make(tiny_encoder: str, opinions: str, tmp_path: Path) -> Make:
    """`make(rank=(1, 2))`: a panel over a small grid of runs that take a moment."""

    def panel(**changes: Any) -> SweepPanel:
        grid: dict[str, Any] = {"rank": (1, 4), "alpha": 16.0, "lr": (1e-3, 1e-2), "seed": (0, 1), "steps": 6}
        given = {**grid, "validations": 2, "picked": ALL, **PLAIN, **changes}
        return SweepPanel(tmp_path / "runs", model=tiny_encoder, task=opinions, **given)

    return panel


def test_what_ships_is_shown_where_nothing_else_is_asked_for(tmp_path: Path):
    panel = SweepPanel(into=tmp_path / "runs")
    assert len(panel.data["runs"]) == 540
    assert (panel.rank, panel.alpha, panel.lr) == panel.best[1:]
    words = panel.describe()
    assert f"rate {panel.lr:g}" in words
    assert panel.data["about"] in words
    assert len(panel.losses) == 40 * len(panel.data["runs"])
    assert len(json.dumps(panel.state())) < 200_000


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
    (other,) = sweep([panel.playground.recipe_of(Cell("q,v", *make().picked[0]), 0)], tmp_path / "other").runs
    live = frame[1, 1e-3, 0].history["validation"]
    for there, here in zip(other.history["validation"], live, strict=True):  # step 0 too, though it is scored last
        assert here == pytest.approx(there, rel=1e-3)
    again, trained = ([run["value"] for run in one.data["runs"]] for one in (make(picked=()), panel))
    assert sorted(again) == sorted(trained)
    with pytest.raises(BadValue, match="has been trained"):
        make().run()


def test_a_run_that_diverges_is_a_failure_on_the_map(make: Make):
    panel = make(picked=[[1, 16.0, 1e-3], [1, 16.0, 1e30]], clip=0.0)
    panel.run()
    states = {cell["lr"]: [panel.data["runs"][n]["state"] for n in cell["runs"]] for cell in panel.data["cells"]}
    assert states[1e30] == ["failed", "failed"]
    assert panel.best.lr == 1e-3


def test_an_error_is_shown_in_the_panel(make: Make, watched: None):
    first, second = make(steps=2000), make()
    first.run()
    until(lambda: first.work.state == "training")
    second.run()
    until(lambda: "another sweep is using" in second.live.get("error", ""))
    first.stop()
    until(lambda: not first.work.alive)
    second.picked = []
    said(second, "run")
    assert "nothing is picked" in second.live["error"]

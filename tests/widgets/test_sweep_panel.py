import pytest

from lora_lab import SweepPanel, sweep
from lora_lab.experiments.playground import Cell
from tests.conftest import PLAIN, assert_raises, said, until

CELLS = [[rank, 16.0, lr] for rank in (1, 4) for lr in (1e-3, 1e-2)]


@pytest.fixture
def make(tiny_encoder, opinions, tmp_path):
    """`make(steps=8)`: a panel with a small grid of short runs, all of them picked."""

    def panel(**changes) -> SweepPanel:
        grid = {"rank": (1, 4), "alpha": 16.0, "lr": (1e-3, 1e-2), "seed": (0, 1), "steps": 6, "validations": 2}
        fields = {**grid, "picked": CELLS, **PLAIN, **changes}
        return SweepPanel(tmp_path / "runs", model=tiny_encoder, task=opinions, **fields)

    return panel


def test_picked_cells_are_trained_as_in_a_sweep(make, tmp_path):
    panel = make()
    panel.run()
    assert panel.live["state"] == "done"
    assert panel.picked == []
    runs = {(run.recipe.method.rank, run.recipe.lr, run.recipe.seed): run for run in panel.store.runs()}
    assert len(runs) == 8
    for cell in panel.data["cells"]:
        values = [runs[cell["rank"], cell["lr"], s].history["validation"][-1]["accuracy"] for s in (0, 1)]
        assert cell["mean"] == pytest.approx(50 * sum(values), abs=0.01)
    (expected,) = sweep([panel.playground.recipe_of(Cell("q,v", *CELLS[0]), 0)], tmp_path / "other").runs
    actual = runs[1, 1e-3, 0].history["validation"]
    for a, b in zip(actual, expected.history["validation"], strict=True):  # including step 0, which is scored last
        assert a == pytest.approx(b, rel=1e-3)
    again = make(picked=[[1, 16.0, 1e-3 * (1 + 1e-15)]])
    assert_raises("has been trained", again.run)
    again = make(picked=())
    reopened, trained = (sorted(run["value"] for run in p.data["runs"]) for p in (again, panel))
    assert reopened == trained
    assert (again.rank, again.alpha, again.lr) == again.best[1:]
    assert f"{again.data['about']} Best on validation: rate {again.lr:g}" in again.describe()
    assert_raises("has been trained", make().run)


def test_diverged_runs_are_marked_as_failed(make):
    panel = make(picked=[[1, 16.0, 1e-3], [1, 16.0, 1e30]], clip=0.0)
    panel.run()
    states = {cell["lr"]: [panel.data["runs"][n]["state"] for n in cell["runs"]] for cell in panel.data["cells"]}
    assert states[1e30] == ["failed", "failed"]
    assert panel.best.lr == 1e-3


def test_errors_are_shown_in_the_panel(make, watched):
    assert_raises("no field 'ranks'", make, ranks=(1, 2))
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

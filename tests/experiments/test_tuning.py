import json
from itertools import pairwise

import numpy as np
import pytest

from lora_lab import Grid, LoRA, Store, compare, sweep
from lora_lab.cli import _summary
from lora_lab.cli.sweep import describe
from lora_lab.errors import Failed
from lora_lab.experiments import tuning
from lora_lab.experiments.tuning import AXES, Axis, Tried, Tuning, tune
from lora_lab.training import pack
from lora_lab.training.runs import failed
from tests.conftest import PLAIN, assert_raises


@pytest.fixture
def set_grid(monkeypatch):
    """`set_grid(lowest)` makes LoRA's grid of rates start at that rate."""
    return lambda lowest, factor=10.0: monkeypatch.setitem(tuning.AXES, "lora", Axis(lowest, factor))


def test_grids_are_geometric_and_as_long_as_requested():
    assert AXES["lora"].grid(4) == [5e-4, 1e-3, 2e-3, 4e-3]
    assert AXES["lora"].grid(2) == [1e-3, 2e-3]
    for axis in AXES.values():
        for n in (1, 2, 3, 4, 7):
            values = axis.grid(n, below=2, above=2)
            assert len(values) == n + 4
            grids = [axis.grid(n, below=2), axis.grid(n), axis.grid(n, above=2)]
            assert grids == [values[:-2], values[2:-2], values[2:]]
            assert [b / a for a, b in pairwise(values)] == pytest.approx([axis.factor] * (n + 3), rel=0.06)


def test_best_rate_is_found_on_validation_alone(recipe, set_grid, tmp_path, monkeypatch):
    splits = set()
    monkeypatch.setattr(pack.Pack, "rows_of", lambda self, split: splits.add(split) or self.rows[split])
    set_grid(1e-3)
    found = tune(recipe(steps=12, method=LoRA(rank=2)), tmp_path, rates=4, growth=2, seeds=2)
    assert {1e-3, 1e-2, 1e-1, 1.0} <= {tried.value for tried in found.tried}
    assert len(found.tried) in (4, 6)
    assert found.best == max(found.tried, key=lambda tried: (tried.validation or 0.0, -tried.loss))
    runs = Store(tmp_path).runs()
    assert len(runs) == 2 * len(found.tried)
    for tried in found.tried:  # the mean over seeds counts
        own = {run.recipe.seed: run.history["validation"][-1] for run in runs if run.recipe.lr == tried.value}
        assert sorted(own) == [1000, 1001]
        assert tried.each == [[own[seed]["accuracy"], own[seed]["loss"]] for seed in (1000, 1001)]
        assert [tried.validation, tried.loss] == pytest.approx(np.mean(tried.each, axis=0).tolist())
    assert all(run.metrics == {} and run.predictions is None and run.adapter is None for run in runs)
    assert {record["step"] for run in runs for record in run.history["validation"]} == {12}
    assert splits == {"validation"}
    assert [file.name for file in tmp_path.iterdir() if file.is_dir() and file.name != "unfinished"] == []


def test_grid_grows_at_the_end_with_the_best_rate(recipe, set_grid, tmp_path):
    set_grid(1e-8)
    found = tune(recipe(steps=12), tmp_path, rates=2, growth=2)
    low, high = (tried for tried in found.tried if tried.value in (1e-7, 1e-6))
    above = (high.validation, -high.loss) > (low.validation, -low.loss)
    assert [tried.value for tried in found.tried] == [1e-7, 1e-6, 1e-5, 1e-4] if above else [1e-9, 1e-8, 1e-7, 1e-6]
    assert tune(recipe(steps=12), tmp_path, rates=2, growth=2) == found
    assert tune(recipe(steps=12), tmp_path, rates=2, growth=0).edge


def test_diverging_rate_is_not_chosen(recipe, set_grid, tmp_path):
    set_grid(1e-2, 1e16)
    events = []
    found = tune(
        recipe(steps=12), tmp_path, rates=3, growth=1, again=True, on_event=lambda event, _: events.append(event)
    )
    assert events.count("run") == len(found.tried) == 4  # a failed run is retried once, but not when the grid grows
    assert found.tried[-1].validation is None
    assert found.best.validation is not None
    set_grid(1e30)
    assert_raises("lower the rate", tune, recipe(), tmp_path, rates=2, error=Failed)


def test_failed_rate_that_was_added_is_retried(recipe, set_grid, tmp_path):
    set_grid(1e-8)
    found = tune(recipe(steps=12), tmp_path, rates=2, growth=1)
    (added,) = {tried.value for tried in found.tried} - {*AXES["lora"].grid(2)}
    (run,) = (run for run in Store(tmp_path).runs() if run.recipe.lr == added)
    Store(tmp_path).add(failed(run.recipe, "memory ran out"))
    assert tune(recipe(steps=12), tmp_path, rates=2, growth=1).tried != found.tried
    assert tune(recipe(steps=12), tmp_path, rates=2, growth=1, again=True).tried == found.tried


@pytest.mark.parametrize("choose", [False, True])
def test_sts_b_is_tuned_and_described_by_its_correlation_and_not_compared(tiny_encoder, tmp_path, choose):
    """The labels of STS-B are numbers, so it has no accuracy, and no score of each row for a verdict."""
    for split in ("train", "validation"):
        rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "label": n / 2} for n in range(8)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = f"glue:sts-b:{tmp_path}"
    recipes = Grid(lr=[1e-3, 1e-2]).recipes(tiny_encoder, task, steps=4, batch=4, validations=2, **PLAIN)
    swept = sweep(recipes, tmp_path / "runs", choose=choose)
    assert "mean pearson" in describe(swept)
    assert "pearson on validation" in _summary(swept.runs[0])
    if not choose:
        assert tune(recipes[0], tmp_path / "tuning", rates=2, growth=0).metric == "pearson"
    assert_raises("a correlation", compare, tiny_encoder, task, "head,lora", tmp_path / "out", steps=4)


def test_best_and_edge_follow_the_metric():
    tried = (Tried(1e-3, 20.0, 3.0), Tried(2e-3, 18.0, 2.9), Tried(4e-3, 18.0, 2.8))
    perplexity = Tuning(tried, "perplexity", 1.0)
    assert (perplexity.best.value, perplexity.edge) == (4e-3, True)
    accuracy = perplexity._replace(tried=(*tried[1:], Tried(8e-3)), metric="accuracy")
    assert (accuracy.best.value, accuracy.edge) == (4e-3, False)

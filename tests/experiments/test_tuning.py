"""Tuning: the same number of rates for every method, more of them at an edge, and the test split left alone."""

import json
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest

from lora_lab import Grid, LoRA, Store, sweep
from lora_lab.cli import _summary
from lora_lab.cli.sweep import describe
from lora_lab.errors import Failed
from lora_lab.experiments import tuning
from lora_lab.experiments.tuning import AXES, Axis, Tried, Tuning, tune
from lora_lab.training import pack
from tests.conftest import PLAIN


@pytest.fixture
def gentle(monkeypatch):
    """`gentle(lowest)`: LoRA's grid begins there."""
    return lambda lowest, factor=10.0: monkeypatch.setitem(tuning.AXES, "lora", Axis(lowest, factor))


def test_every_grid_is_geometric_and_as_long_as_asked_for():
    assert AXES["lora"].grid(4) == [5e-4, 1e-3, 2e-3, 4e-3]
    assert AXES["lora"].grid(2) == [1e-3, 2e-3]
    for axis in AXES.values():
        for n in (1, 2, 3, 4, 7):
            grid, values = axis.grid(n), axis.grid(n, below=2, above=2)
            assert (len(grid), len(values)) == (n, n + 4)
            assert (axis.grid(n, below=2), grid, axis.grid(n, above=2)) == (values[:-2], values[2:-2], values[2:])
            assert [b / a for a, b in pairwise(values)] == pytest.approx([axis.factor] * (n + 3), rel=0.06)


def test_the_best_rate_on_validation_is_found_inside_and_nothing_is_scored_or_kept(
    recipe, gentle, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(pack.Pack, "rows_of", lambda self, split: asked.append(split) or self.rows[split])
    gentle(1e-3)
    found = tune(recipe(steps=12, method=LoRA(rank=2)), tmp_path, rates=4, growth=2)
    assert {1e-3, 1e-2, 1e-1, 1.0} <= {one.value for one in found.tried}
    assert len(found.tried) in (4, 6)
    assert found.best == max(found.tried, key=lambda one: (one.validation or 0.0, -one.loss))
    runs = Store(tmp_path).runs()
    assert len(runs) == len(found.tried)
    assert {run.recipe.seed for run in runs} == {1000}
    assert all(run.metrics == {} and run.predictions is None and run.adapter is None for run in runs)
    assert {record["step"] for run in runs for record in run.history["validation"]} == {12}
    assert set(asked) == {"validation"}
    assert [f.name for f in tmp_path.iterdir() if f.is_dir() and f.name != "unfinished"] == []


def test_with_several_tuning_seeds_the_mean_counts_and_each_is_kept(recipe, gentle, tmp_path):
    gentle(1e-3)
    found = tune(recipe(steps=12), tmp_path, rates=2, growth=0, seeds=3)
    runs = Store(tmp_path).runs()
    assert sorted({run.recipe.seed for run in runs}) == [1000, 1001, 1002]
    for one in found.tried:
        last = [run.history["validation"][-1] for run in runs if run.recipe.lr == one.value]
        assert sorted(one.each) == sorted([record["accuracy"], record["loss"]] for record in last)
        assert one.validation == pytest.approx(fmean(record["accuracy"] for record in last))
    assert tune(recipe(steps=12), tmp_path, rates=2, growth=0).tried != found.tried  # one seed


def test_the_grid_grows_where_the_best_is_at_its_end(recipe, gentle, tmp_path):
    gentle(1e-8)
    found = tune(recipe(steps=12), tmp_path, rates=2, growth=2)
    low, high = (one for one in found.tried if one.value in (1e-7, 1e-6))
    upwards = (high.validation, -high.loss) > (low.validation, -low.loss)
    assert [one.value for one in found.tried] == ([1e-7, 1e-6, 1e-5, 1e-4] if upwards else [1e-9, 1e-8, 1e-7, 1e-6])
    assert tune(recipe(steps=12), tmp_path, rates=2, growth=2) == found
    assert tune(recipe(steps=12), tmp_path, rates=2, growth=0).edge


def test_a_rate_that_diverges_is_an_end_found(recipe, gentle, tmp_path):
    gentle(1e-2, 1e16)
    found = tune(recipe(steps=12), tmp_path, rates=3, growth=1)
    assert found.tried[-1].validation is None
    assert found.best.validation is not None
    gentle(1e30)
    with pytest.raises(Failed, match="lower the rate"):
        tune(recipe(), tmp_path, rates=2)


@pytest.mark.parametrize("choose", [False, True])
def test_a_task_that_is_judged_by_a_correlation_is_tuned_and_told_of_by_it(tiny_encoder, tmp_path, choose):
    """STS-B has numbers for labels, and no accuracy."""
    for stem in ("train", "validation"):
        rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "label": n / 2} for n in range(8)]
        (tmp_path / f"{stem}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = f"glue:sts-b:{tmp_path}"
    recipes = Grid(lr=[1e-3, 1e-2]).recipes(tiny_encoder, task, steps=4, batch=4, validations=2, **PLAIN)
    swept = sweep(recipes, tmp_path / "runs", choose=choose)
    assert "mean pearson" in describe(swept)
    assert "pearson on validation" in _summary(swept.runs[0])
    if not choose:
        assert tune(recipes[0], tmp_path / "tuning", rates=2, growth=0).metric == "pearson"


def test_best_and_edge_follow_the_metric():
    tried = (Tried(1e-3, 20.0, 3.0), Tried(2e-3, 18.0, 2.9), Tried(4e-3, 18.0, 2.8))
    perplexity = Tuning(tried, "perplexity", 1.0)
    assert (perplexity.best.value, perplexity.edge) == (4e-3, True)
    accuracy = replace(perplexity, tried=(*tried[1:], Tried(8e-3)), metric="accuracy")
    assert (accuracy.best.value, accuracy.edge) == (4e-3, False)

"""Tests of the store: order, replacement, and damaged records."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from lora_lab import LoRA, Recipe, Run, Store
from lora_lab.errors import BadValue
from tests.conftest import made_run

RECIPE = Recipe("minilm", "rt", LoRA(rank=2))


def new_run(recipe: Recipe = RECIPE, **changes) -> Run:
    return replace(made_run(recipe, None, {"torch": "2"}, accuracy=0.8), adapter="runs/x", **changes)


def test_runs_are_listed_oldest_first_and_replaced_by_recipe(tmp_path):
    store = Store(tmp_path)
    recipes = [Recipe("minilm", "rt", seed=seed) for seed in range(3)]
    for age, recipe in enumerate(recipes):
        store.add(new_run(recipe))
        os.utime(tmp_path / f"{recipe.hash}.json", (age, age))
    assert [run.recipe.seed for run in store.runs()] == [0, 1, 2]
    store.add(new_run(recipes[0], metrics={"accuracy": 0.9}))
    assert [(run.recipe.seed, run.metrics["accuracy"]) for run in store.runs()] == [(1, 0.8), (2, 0.8), (0, 0.9)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has format version 2.*update lora_lab"),
        ({"metrics": None}, "is not a run of lora_lab"),
        ({"recipe": 5}, "is not a run of lora_lab"),
        ({"recipe": {**RECIPE.settings(), "method": []}}, "settings, such as .*, not \\[\\]"),
        ({"history": {}}, "is not a run of lora_lab"),
        ({"metrics": {"accuracy": float("nan")}}, "a number is not finite"),
        ({"environment": {"data": []}}, "is not a run of lora_lab"),
        ({"recipe": {**RECIPE.settings(), "steps": 0}}, "is not a run of lora_lab .*steps must be"),
        ({"recipe": {**RECIPE.settings(), "color": 1}}, "no field 'color'"),
    ],
)
def test_invalid_record_is_named_with_the_reason(tmp_path, change, message):
    Store(tmp_path).add(new_run())
    file = tmp_path / f"{RECIPE.hash}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BadValue, match=rf"{file.name}.*{message}"):
        Store(tmp_path).runs()


def test_unreadable_files_are_named_and_other_json_is_ignored(tmp_path):
    store = Store(tmp_path / "runs")
    assert store.runs() == []
    store.add(new_run(predictions=np.array([1, 2])))
    for content in (b"", b"no array", b"\x93NUMPY\x01\x00"):
        (store.folder / RECIPE.hash / "predictions.npy").write_bytes(content)
        with pytest.raises(BadValue, match=RECIPE.hash):
            store.runs()
    store = Store(tmp_path)
    for content in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "protocol-table2-rte.json").write_bytes(content)
        assert store.runs() == []
        (tmp_path / "0123456789ab.json").write_bytes(content)
        with pytest.raises(BadValue, match="0123456789ab"):
            store.runs()
        (tmp_path / "0123456789ab.json").unlink()


def test_only_finished_runs_replace_finished_runs(tmp_path):
    for stored, new, replaces in (("done", "stopped", False), ("early", "failed", False), ("stopped", "done", True)):
        Store(tmp_path).add(new_run(status=stored))
        assert Store(tmp_path).replaces(new, RECIPE) == replaces

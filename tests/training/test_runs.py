"""The store: runs come back as they were, in order, and a damaged one is named."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from lora_lab import LoRA, Recipe, Run, Store
from lora_lab.errors import BadValue
from tests.conftest import made_run


def a_run(**changes) -> Run:
    recipe = changes.pop("recipe", Recipe("minilm", "rt", LoRA(rank=2, alpha_pattern={"q": 3})))
    return replace(made_run(recipe, None, {"torch": "2"}, accuracy=0.8), adapter="runs/x", **changes)


def test_a_run_comes_back_with_its_predictions(tmp_path):
    run = a_run(predictions=np.array([0, 1, 1]))
    Store(tmp_path).add(run)
    (back,) = Store(tmp_path).runs()
    assert back == run
    assert back.predictions.tolist() == [0, 1, 1]
    assert back.trainable == 110


def test_runs_come_oldest_first_and_the_same_recipe_replaces(tmp_path):
    store = Store(tmp_path)
    recipes = [Recipe("minilm", "rt", seed=seed) for seed in range(3)]
    for age, recipe in enumerate(recipes):
        store.add(a_run(recipe=recipe))
        os.utime(tmp_path / f"{recipe.hash}.json", (age, age))
    assert [run.recipe.seed for run in store.runs()] == [0, 1, 2]
    store.add(a_run(recipe=recipes[0], metrics={"accuracy": 0.9}))
    assert [(run.recipe.seed, run.metrics["accuracy"]) for run in store.runs()] == [(1, 0.8), (2, 0.8), (0, 0.9)]


SETTINGS = Recipe("minilm", "rt").settings()
DAMAGED = [
    ({"version": 2}, "has format version 2.*update it"),
    ({"metrics": None}, "is not a run of lora_lab"),
    ({"recipe": 5}, "is not a run of lora_lab"),
    ({"recipe": {**SETTINGS, "method": []}}, "settings, such as .*, not \\[\\]"),
    ({"history": {}}, "is not a run of lora_lab"),
    ({"metrics": {"accuracy": float("nan")}}, "a number is not finite"),
    ({"environment": {"data": []}}, "is not a run of lora_lab"),
    ({"recipe": {**SETTINGS, "steps": 0}}, "is not a run of lora_lab .*steps must be"),
    ({"recipe": {**SETTINGS, "color": 1}}, "no field 'color'"),
]


def test_a_record_that_does_not_fit_is_named_with_the_reason(tmp_path):
    store, run = Store(tmp_path), a_run()
    store.add(run)
    file = tmp_path / f"{run.recipe.hash}.json"
    record = json.loads(file.read_text())
    without = {name: value for name, value in record.items() if name != "metrics"}
    for damaged, sentence in [(without, "metrics"), *((record | change, said) for change, said in DAMAGED)]:
        file.write_text(json.dumps(damaged))
        with pytest.raises(BadValue, match=rf"{file.name}.*{sentence}"):
            store.runs()


def test_damaged_records_and_predictions_are_named_by_their_run_and_other_json_is_none(tmp_path):
    run = a_run(predictions=np.array([1, 2]))
    Store(tmp_path).add(run)
    for content in (b"", b"no array", b"\x93NUMPY\x01\x00"):
        (tmp_path / run.recipe.hash / "predictions.npy").write_bytes(content)
        with pytest.raises(BadValue, match=run.recipe.hash):
            Store(tmp_path).runs()
    other = tmp_path / "other"
    other.mkdir()
    for content in (b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000):
        (other / "protocol-table2-rte.json").write_bytes(content)
        assert Store(other).runs() == Store(tmp_path / "nowhere").runs() == []
        (other / "0123456789ab.json").write_bytes(content)
        with pytest.raises(BadValue, match="0123456789ab"):
            Store(other).runs()
        (other / "0123456789ab.json").unlink()


def test_a_finished_run_is_not_lost_to_one_cut_short(tmp_path):
    for first, second, replaced in (("done", "stopped", False), ("early", "failed", False), ("stopped", "done", True)):
        Store(tmp_path).add(a_run(status=first))
        assert Store(tmp_path).replaces(second, a_run().recipe) == replaced

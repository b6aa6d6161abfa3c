import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_linear_schedule_with_warmup

from lora_lab import LoRA, Recipe, Run, Store
from lora_lab.training.recipe import recipe_from
from lora_lab.training.runs import run_of
from tests.conftest import assert_raises, made_run

RANK_2 = Recipe("minilm", "rt", LoRA(rank=2))


def new_run(recipe: Recipe = RANK_2, **changes) -> Run:
    return replace(made_run(recipe, None, {"torch": "2"}, accuracy=0.8), adapter="runs/x", **changes)


def test_runs_are_listed_oldest_first_and_replaced_by_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    store = Store("~/runs")
    recipes = [Recipe("minilm", "rt", seed=seed) for seed in range(3)]
    for age, recipe in enumerate(recipes):
        store.add(new_run(recipe))
        os.utime(tmp_path / "runs" / f"{recipe.hash}.json", (age, age))
    assert [run.recipe.seed for run in store.runs()] == [0, 1, 2]
    assert run_of(f"~/runs/{recipes[1].hash}").recipe == recipes[1]
    store.add(new_run(recipes[0], metrics={"accuracy": 0.9}))
    assert [(run.recipe.seed, run.metrics["accuracy"]) for run in store.runs()] == [(1, 0.8), (2, 0.8), (0, 0.9)]


def test_invalid_files_are_named_with_the_reason_and_other_json_is_ignored(tmp_path):
    store = Store(tmp_path / "runs")
    assert store.runs() == []
    store.add(new_run(predictions=np.array([1, 2])))
    file, rows = store.folder / f"{RANK_2.hash}.json", store.folder / RANK_2.hash / "predictions.npy"
    record, predictions, no_records = json.loads(file.read_text()), rows.read_bytes(), (b"", b"{", b"[]", b"\xff\xfe")
    for content in no_records:
        (store.folder / "protocol-table2-rte.json").write_bytes(content)
        assert len(store.runs()) == 1
    for content in (b"", b"no array", b"\x93NUMPY\x01\x00"):
        rows.write_bytes(content)
        assert_raises(RANK_2.hash, store.runs)
    rows.write_bytes(predictions)
    for change, message in (
        *((content, "is not a lora_lab run") for content in (*no_records, b"[" * 100_000)),
        ({"version": 2}, "has format version 2.*update lora_lab"),
        ({"metrics": None}, "is not a lora_lab run"),
        ({"recipe": 5}, "is not a lora_lab run"),
        ({"recipe": {**RANK_2.settings(), "method": []}}, "settings, such as .*, not \\[\\]"),
        ({"history": {}}, "is not a lora_lab run"),
        ({"metrics": {"accuracy": float("nan")}}, "a number is not finite"),
        ({"environment": {"data": []}}, "is not a lora_lab run"),
        ({"recipe": {**RANK_2.settings(), "steps": 0}}, "is not a lora_lab run .*steps must be"),
        ({"recipe": {**RANK_2.settings(), "color": 1}}, "no field 'color'"),
    ):
        file.write_bytes(change if isinstance(change, bytes) else json.dumps(record | change).encode())
        assert_raises(rf"{file.name}.*{message}", store.runs)


RECIPE = Recipe("minilm", "rt", LoRA(rank=4, rank_pattern={"v": 2}), lr=1e-3, steps=50, seed=3)
INVALID = {
    **dict.fromkeys(("patience", "validations", "examples", "subset", "clip", "weight_decay"), (-1,)),
    "steps": (0, 1.5, True, "4", np.bool_(True)), "batch": (0,), "seed": (-1, np.arange(2), 2**70),
    "lr": (0, float("nan"), float("inf"), "fast"), **dict.fromkeys(("warmup", "label_smoothing"), (-0.1, 1.1)),
    "method": ("lora",), "start": (None,), "device": (0,), "max_length": ("64",), "token_mean": ("yes",),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in INVALID for value in INVALID[name]])
def test_invalid_value_is_refused(name, value):
    assert_raises(f"^{name} must be", Recipe, "minilm", "rt", **{name: value})


def test_unknown_and_contradictory_fields_are_refused():
    assert_raises("no field 'step'; nearest: steps", recipe_from, {**RECIPE.settings(), "step": 1})
    advice = r"^dropout must be True or False, not 0.1; .* LoRA\(dropout=0.1\)"  # in other libraries, it is a rate
    assert_raises(advice, Recipe, "minilm", "rt", dropout=0.1)
    assert_raises("patience counts validations", Recipe, "minilm", "rt", patience=2, validations=0)
    assert_raises("needs a number of examples too", Recipe, "minilm", "rt", subset=1)


@given(steps=st.integers(1, 500), warmup=st.floats(0, 1), lr=st.floats(1e-6, 10))
def test_rate_is_that_of_transformers_linear_schedule(steps, warmup, lr):
    """The first update has the schedule's rate of step 1, because an update at rate 0 would be wasted."""
    recipe = Recipe("minilm", "rt", steps=steps, warmup=warmup, lr=lr)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    schedule = get_linear_schedule_with_warmup(optimizer, max(1, round(warmup * steps)), steps + 1)
    rates = [recipe.lr_at(step) for step in range(1, steps + 1)]
    assert rates == pytest.approx([lr * schedule.lr_lambdas[0](step) for step in range(1, steps + 1)])
    assert 0 < min(rates) <= max(rates) == pytest.approx(lr)


def test_settings_round_trip_in_any_order(tmp_path):
    assert Recipe("minilm", tmp_path).task == str(tmp_path)
    settings = RECIPE.settings()
    assert recipe_from(settings) == RECIPE
    reordered = dict(reversed(settings.items()))
    reordered["method"] = dict(reversed(settings["method"].items()))
    assert recipe_from(reordered).hash == RECIPE.hash


def test_hash_ignores_newer_fields_at_their_defaults():
    defaults = Recipe("minilm", "rt")
    assert defaults.hash == Recipe("minilm", "rt", LoRA(dora=False, lr_ratio=1, freeze_a=False)).hash == "3c0110fb1204"
    values = {"label_smoothing": 0.1, "token_mean": True, "start": "a", "examples": 50, "lr": 1e-3, "seed": 4}
    values |= {"task": "imdb", "dropout": True, "batch": 8}
    lora = {"dora": True, "init": "pissa", "freeze_a": True, "lr_ratio": 16, "rank": 5, "alpha_pattern": {"q": 3}}
    changes = [{name: value} for name, value in values.items()] + [{"examples": 50, "subset": 1}]
    changes += [{"method": LoRA(**{name: value})} for name, value in lora.items()]
    recipes = [replace(defaults, **change) for change in changes]
    assert len({recipe.hash for recipe in [defaults, *recipes]}) == len(recipes) + 1
    assert [recipe_from(recipe.settings()) for recipe in recipes] == recipes


def test_order_of_targets_counts_only_in_patterns_where_the_first_match_wins():
    for patterns, hashes in (((("q", 4), ("*.0.*.query", 2)), 2), ((("q", 4), ("down", 2)), 1)):
        both = [Recipe("minilm", "rt", LoRA(rank_pattern=dict(order))) for order in (patterns, patterns[::-1])]
        assert len({recipe_from(recipe.settings()).hash for recipe in both}) == len(set(both)) == hashes
    assert LoRA(targets=set("gfedcba") | {"v", "q"}).targets == ("q", "v", *"abcdefg")


def test_numpy_values_become_python_values():
    expected = replace(RECIPE, lr=0.5, dropout=True)
    method = LoRA(rank=np.int64(4), alpha=np.float64(16), rslora=np.bool_(False), rank_pattern={"v": np.int32(2)})
    numbers = {"lr": np.float32(0.5), "steps": np.int16(50), "seed": np.array(3), "dropout": np.bool_(True)}
    actual = Recipe("minilm", "rt", method, **numbers)
    assert actual == expected
    assert actual.hash == expected.hash == replace(expected, dropout=1).hash
    assert json.loads(json.dumps(actual.settings())) == expected.settings()

"""The recipe: what it refuses, the rate at each step, and a hash that is the same on every machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import IA3, FullFineTuning, LoRA, PromptTuning, Recipe
from lora_lab.errors import BadValue
from lora_lab.methods import REGISTRY, method_from
from lora_lab.training.recipe import recipe_from

RECIPE = Recipe("minilm", "rt", LoRA(rank=4, rank_pattern={"v": 2}), lr=1e-3, steps=50, seed=3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("steps", "batch") for value in (0, -1, 1.5, True, "4")),
        *((name, value) for name in ("seed", "patience", "validations", "examples", "subset") for value in (-1, 0.5)),
        *(("lr", value) for value in (0, -1e-3, float("nan"), float("inf"), "fast")),
        *(("warmup", value) for value in (-0.1, 1.1)),
        *(("clip", value) for value in (-1, float("nan"))),
        ("weight_decay", -0.1),
    ],
)
def test_an_impossible_value_is_refused_by_name(name, value):
    with pytest.raises(BadValue, match=f"^{name} must be"):
        Recipe("minilm", "rt", **{name: value})


def test_the_bases_dropout_is_no_rate():
    """In other configs it is one; taken for True it would switch on all of the base's."""
    with pytest.raises(BadValue, match=r"^dropout must be True or False, not 0.1; .* LoRA\(dropout=0.1\)"):
        Recipe("minilm", "rt", dropout=0.1)
    with pytest.raises(BadValue, match=r"^token_mean must be True or False, not 'yes'$"):
        Recipe("minilm", "rt", token_mean="yes")


def test_patience_needs_validations():
    with pytest.raises(BadValue, match="patience counts validations"):
        Recipe("minilm", "rt", patience=2, validations=0)


@given(steps=st.integers(1, 500), warmup=st.floats(0, 1), lr=st.floats(1e-6, 10))
def test_the_rate_rises_to_its_peak_and_falls_to_its_smallest_step(steps, warmup, lr):
    recipe = Recipe("minilm", "rt", steps=steps, warmup=warmup, lr=lr)
    rates = [recipe.lr_at(step) for step in range(1, steps + 1)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(lr)
    assert min(rates) > 0
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_settings_and_back():
    assert recipe_from(RECIPE.settings()) == RECIPE
    assert recipe_from(RECIPE.settings()).hash == RECIPE.hash


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(BadValue, match="no field 'learning_rate'"):
        recipe_from({**RECIPE.settings(), "learning_rate": 1})
    with pytest.raises(BadValue, match="no field 'step'; nearest: steps"):
        recipe_from({**RECIPE.settings(), "step": 1})


def test_the_hash_is_the_same_in_another_process():
    code = (
        "from lora_lab import LoRA, Recipe; "
        "print(Recipe('minilm', 'rt', LoRA(rank=4, rank_pattern={'v': 2}), lr=1e-3, steps=50, seed=3).hash)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == RECIPE.hash
    assert len(RECIPE.hash) == 12


def test_the_hash_does_not_depend_on_the_order_of_the_settings():
    settings = RECIPE.settings()
    backwards = dict(reversed(settings.items()))
    backwards["method"] = dict(reversed(settings["method"].items()))
    assert recipe_from(backwards).hash == RECIPE.hash


def test_equal_recipes_have_equal_hashes_whether_a_number_is_written_16_or_16_point_0():
    whole, real = (Recipe("minilm", "rt", LoRA(alpha=alpha), clip=clip) for alpha, clip in ((16, 1), (16.0, 1.0)))
    assert whole == real
    assert whole.hash == real.hash


@pytest.mark.parametrize(
    "change", [{"lr": 2e-3}, {"seed": 4}, {"task": "imdb"}, {"method": LoRA(rank=5)}, {"dropout": True}, {"batch": 8}]
)
def test_whatever_changes_the_run_changes_the_hash(change):
    assert recipe_from(
        {**RECIPE.settings(), **change, "method": change.get("method", RECIPE.method).settings()}
    ).hash != (RECIPE.hash)


def test_a_recipe_on_all_texts_keeps_the_hash_that_it_had_before_there_were_draws():
    assert Recipe("minilm", "rt").hash == "3c0110fb1204"
    few = [Recipe("minilm", "rt", examples=50, subset=n) for n in range(2)]
    assert len({Recipe("minilm", "rt").hash, *(recipe.hash for recipe in few)}) == 3
    assert [recipe_from(recipe.settings()) for recipe in few] == few
    assert few[1].describe().endswith("seed 0, 50 examples, subset 1")
    with pytest.raises(BadValue, match="needs a number of examples too"):
        Recipe("minilm", "rt", subset=1)


def test_a_legend_says_what_differs_between_runs():
    assert RECIPE.describe() == "lora, rank 4, alpha 16, q+v, lr 0.001, seed 3"


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (LoRA(rank=4, alpha=8), "lora, rank 4, alpha 8, q+v, lr 0.001, seed 2"),
        (PromptTuning(), "prompt, lr 0.001, seed 2"),
        (PromptTuning(tokens=40), "prompt, tokens 40, lr 0.001, seed 2"),
        (IA3(targets="k,v", feedforward=()), "ia3, targets k+v, feedforward none, lr 0.001, seed 2"),
    ],
)
def test_a_line_tells_what_is_not_usual_of_a_method(method, words):
    assert Recipe("minilm", "rt", method, lr=1e-3, seed=2).describe() == words


def test_weights_that_train_are_loaded_in_fp32_unless_another_dtype_is_asked_for():
    assert Recipe("minilm", "rt", FullFineTuning()).base_dtype == "fp32"
    assert Recipe("minilm", "rt", FullFineTuning(), dtype="bf16").base_dtype == "bf16"
    assert Recipe("minilm", "rt", LoRA()).base_dtype == "auto"


def test_fields_that_came_later_change_no_hash_at_their_defaults():
    assert Recipe("minilm", "rt").hash == "3c0110fb1204"
    later = [{"label_smoothing": 0.1}, {"token_mean": True}, {"start": "a"}]
    made = [Recipe("minilm", "rt", **own) for own in later]
    assert len({recipe.hash for recipe in made} | {"3c0110fb1204"}) == 4
    assert [recipe_from(recipe.settings()) for recipe in made] == made
    with pytest.raises(BadValue, match="label_smoothing must be a number from 0 to 1"):
        Recipe("minilm", "rt", label_smoothing=1.5)


def test_numbers_of_numpy_are_pythons_own():
    ours = Recipe("minilm", "rt", LoRA(rank=4, rank_pattern={"v": 2}), lr=0.5, steps=50, seed=3, dropout=True)
    method = LoRA(rank=np.int64(4), alpha=np.float64(16), rslora=np.bool_(False), rank_pattern={"v": np.int32(2)})
    numbers = {"lr": np.float32(0.5), "steps": np.int16(50), "seed": np.array(3), "dropout": np.bool_(True)}
    given = Recipe("minilm", "rt", method, **numbers)
    assert given == ours
    assert given.hash == ours.hash
    assert json.loads(json.dumps(given.settings())) == ours.settings()
    with pytest.raises(BadValue, match=r"^seed must be a whole number of at least 0, not \[0, 1\]"):
        Recipe("minilm", "rt", seed=np.arange(2))
    with pytest.raises(BadValue, match=r"^steps must be"):
        Recipe("minilm", "rt", steps=np.bool_(True))


OPTIONS = {"rank": 8, "tokens": 8, "size": 8, "top": 1, "hidden": 8, "l2": 2}


@pytest.mark.parametrize("name", REGISTRY)
def test_methods_take_numbers_of_numpy(name):
    known = {field.name for field in fields(REGISTRY[name])} & OPTIONS.keys()
    ours, given = ({"name": name, **{n: make(OPTIONS[n]) for n in known}} for make in (int, np.int64))
    assert method_from(given) == method_from(ours)
    assert Recipe("minilm", "rt", method_from(given)).hash == Recipe("minilm", "rt", method_from(ours)).hash


@pytest.mark.parametrize("name", ["dropout", "token_mean"])
def test_one_is_true_and_has_its_hash(name):
    for number, value in ((1, True), (0, False), (1.0, True)):
        assert Recipe("minilm", "rt", **{name: number}).hash == Recipe("minilm", "rt", **{name: value}).hash

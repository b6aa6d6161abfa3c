"""The recipe: what it refuses, the rate at each step, and a hash that is the same on every machine."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import IA3, LoRA, Recipe
from lora_lab.errors import BadValue
from lora_lab.training.recipe import recipe_from

RECIPE = Recipe("minilm", "rt", LoRA(rank=4, rank_pattern={"v": 2}), lr=1e-3, steps=50, seed=3)


IMPOSSIBLE = {
    **dict.fromkeys(("steps", "batch"), (0, -1, 1.5, True, "4")),
    **dict.fromkeys(("seed", "patience", "validations", "examples", "subset"), (-1, 0.5)),
    **dict.fromkeys(("warmup", "label_smoothing"), (-0.1, 1.1)),
    "lr": (0, -1e-3, float("nan"), float("inf"), "fast"), "clip": (-1, float("nan")), "weight_decay": (-0.1,),
    "method": ("lora",), "start": (None,), "device": (0,), "max_length": ("64",), "token_mean": ("yes",),
}  # fmt: skip


def test_an_impossible_value_is_refused_by_name():
    for name, values in IMPOSSIBLE.items():
        for value in values:
            with pytest.raises(BadValue, match=f"^{name} must be"):
                Recipe("minilm", "rt", **{name: value})


@given(steps=st.integers(1, 500), warmup=st.floats(0, 1), lr=st.floats(1e-6, 10))
def test_the_rate_rises_to_its_peak_and_falls_to_its_smallest_step(steps, warmup, lr):
    recipe = Recipe("minilm", "rt", steps=steps, warmup=warmup, lr=lr)
    rates = [recipe.lr_at(step) for step in range(1, steps + 1)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(lr)
    assert min(rates) > 0
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(BadValue, match="no field 'step'; nearest: steps"):
        recipe_from({**RECIPE.settings(), "step": 1})


def test_fields_that_must_agree_say_so():
    """The base's dropout is a rate in other configs; taken for True it would switch on all of it."""
    with pytest.raises(BadValue, match=r"^dropout must be True or False, not 0.1; .* LoRA\(dropout=0.1\)"):
        Recipe("minilm", "rt", dropout=0.1)
    with pytest.raises(BadValue, match="patience counts validations"):
        Recipe("minilm", "rt", patience=2, validations=0)
    with pytest.raises(BadValue, match="needs a number of examples too"):
        Recipe("minilm", "rt", subset=1)


def test_settings_come_back_in_any_order_with_the_same_hash(tmp_path):
    assert Recipe("minilm", tmp_path).task == str(tmp_path)
    settings = RECIPE.settings()
    assert recipe_from(settings) == RECIPE
    backwards = dict(reversed(settings.items()))
    backwards["method"] = dict(reversed(settings["method"].items()))
    assert recipe_from(backwards).hash == RECIPE.hash


def test_the_hash_is_the_same_on_every_machine_and_fields_that_came_later_change_it_not_at_their_defaults():
    same = LoRA(dora=False, lr_ratio=1, freeze_a=False)
    assert Recipe("minilm", "rt").hash == Recipe("minilm", "rt", same).hash == "3c0110fb1204"
    later = [{"label_smoothing": 0.1}, {"token_mean": True}, {"start": "a"}, {"examples": 50}]
    later += [
        {"method": LoRA(**own)} for own in ({"dora": True}, {"init": "pissa"}, {"freeze_a": True}, {"lr_ratio": 16})
    ]
    made = [Recipe("minilm", "rt", **own) for own in [*later, {"examples": 50, "subset": 1}]]
    assert len({recipe.hash for recipe in made} | {"3c0110fb1204"}) == 10
    assert [recipe_from(recipe.settings()) for recipe in made] == made
    assert made[-1].describe() == "lora, rank 8, alpha 16, q+v, lr 0.002, seed 0, 50 examples, subset 1"
    few = replace(made[0], method=IA3(targets="k,v", feedforward=()))
    assert few.describe() == "ia3, targets k+v, feedforward none, lr 0.002, seed 0"


def test_whatever_changes_the_run_changes_the_hash():
    changes = [{"lr": 2e-3}, {"seed": 4}, {"task": "imdb"}, {"method": LoRA(rank=5)}, {"dropout": True}, {"batch": 8}]
    assert len({replace(RECIPE, **change).hash for change in [{}, *changes]}) == 7


def test_numbers_of_numpy_are_pythons_own():
    ours = Recipe("minilm", "rt", LoRA(rank=4, rank_pattern={"v": 2}), lr=0.5, steps=50, seed=3, dropout=True)
    method = LoRA(rank=np.int64(4), alpha=np.float64(16), rslora=np.bool_(False), rank_pattern={"v": np.int32(2)})
    numbers = {"lr": np.float32(0.5), "steps": np.int16(50), "seed": np.array(3), "dropout": np.bool_(True)}
    given = Recipe("minilm", "rt", method, **numbers)
    assert given == ours
    assert given.hash == ours.hash
    assert json.loads(json.dumps(given.settings())) == ours.settings()
    assert replace(ours, dropout=1).hash == ours.hash
    with pytest.raises(BadValue, match=r"^seed must be an integer of at least 0, not \[0, 1\]"):
        Recipe("minilm", "rt", seed=np.arange(2))
    with pytest.raises(BadValue, match=r"^steps must be"):
        Recipe("minilm", "rt", steps=np.bool_(True))

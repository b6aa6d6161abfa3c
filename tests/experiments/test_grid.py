import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import Grid, HeadOnly, LoRA, Recipe
from lora_lab.experiments import sweep as module
from lora_lab.experiments.grid import check, share
from lora_lab.experiments.sweep import pack_size, packs
from lora_lab.training.pack import key
from tests.conftest import assert_raises


def test_grid_has_every_combination_once():
    axes = {"rank": iter([1, 2]), "alpha": np.array([8, 16]), "lr": np.array([1e-3, 2e-3]), "seed": range(3)}
    recipes = Grid(**axes, targets=["q,v", "k"]).recipes("m", "t", steps=np.int64(5))
    expected = [
        Recipe("m", "t", LoRA(rank, alpha, targets), lr=lr, seed=seed, steps=5, validations=1)
        for rank in (1, 2) for alpha in (8, 16) for targets in ("q,v", "k") for lr in (1e-3, 2e-3) for seed in range(3)
    ]  # fmt: skip
    assert sorted(recipe.hash for recipe in recipes) == sorted(recipe.hash for recipe in expected)
    assert [recipe.validations for recipe in Grid(lr=1e-3).recipes("m", "t", patience=2)] == [8]
    assert_raises(r"its own lr and rank: pass Grid\(lr=", Grid().recipes, "m", "t", rank=8, lr=1e-3)
    for values in ({"rank": []}, {"lr": []}, {"rank": 0}, {"rank": 8, "method": HeadOnly()}):
        assert_raises("", Grid, **values)


def test_recipe_is_checked_if_its_model_can_be_counted(tiny_causal, opinions):
    assert_raises("rank 385 is above", check, [Recipe("nobody/model", "rt"), Recipe("minilm", "rt", LoRA(385))])
    check([Recipe(tiny_causal, opinions, HeadOnly())])
    assert_raises("has none", check, [Recipe(tiny_causal, "kjv", HeadOnly())])  # a text has no labels


def test_method_or_a_rule_supplies_what_the_grid_does_not():
    method = LoRA(4, 2, ("k", "v"), dora=True)
    assert [recipe.method for recipe in Grid(method=method, lr=[1e-3, 2e-3]).recipes("m", "t")] == [method, method]
    both = LoRA(targets=("all-linear", "pooler"))
    assert [recipe.method for recipe in Grid(method=both).recipes("m", "t")] == [both]
    rules = {"fixed:16": [16, 16], "fixed": [16, 16], "rank": [4, 64], "2rank": [8, 128], "sqrt:4": [8, 32]}
    for rule, alphas in rules.items():
        assert [recipe.method.alpha for recipe in Grid(rank=[4, 64], alpha=rule).recipes("m", "t")] == alphas


@given(n=st.integers(1, 50), count=st.integers(0, 120))
def test_shares_cover_the_grid_in_equal_parts(n, count):
    recipes = [Recipe("m", "t", seed=seed) for seed in range(count)]
    parts = [share(recipes, f"{i}/{n}") for i in range(1, n + 1)]
    assert sorted(recipe.seed for part in parts for recipe in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for words in (f"0/{n}", f"{n + 1}/{n}", "1", "a/b", "²/3"):
        assert_raises("i/n", share, [], words)


@pytest.mark.parametrize(("size", "sizes"), [(7, {7, 6}), (11, {10, 8})])
def test_packs_keep_every_core_busy_and_hold_every_recipe(size, sizes, monkeypatch):
    monkeypatch.setattr(module.device, "cut", lambda members, where: [16, 16])  # two cores
    grid = Grid(rank=[1, 2, 4, 8], lr=[1e-3, 2e-3], seed=range(3), targets=["q,v", "all-linear"])
    recipes = grid.recipes("minilm", "rt")
    found = packs(recipes, size=size)
    assert sorted(recipe.hash for pack in found for recipe in pack) == sorted(recipe.hash for recipe in recipes)
    assert {*map(len, found)} == sizes
    # Runs that cannot share a base are packed apart.
    recipes = [Recipe("minilm", "rt", LoRA(r), dropout=d, steps=s) for r in (1, 2) for d in (0, 1) for s in (5, 6)]
    assert sorted(map(len, packs(recipes, size=8))) == [1, 1, 1, 1, 2, 2]
    assert all(len({key(recipe) for recipe in pack}) == 1 for pack in found + packs(recipes, size=8))


def test_pack_size_falls_with_memory(monkeypatch):
    recipes = Grid(rank=8, seed=range(40)).recipes("minilm", "rt", batch=16)

    def size(gib: float, room: float = module.ROOM) -> int:
        monkeypatch.setattr(module, "free_bytes", lambda where: int(gib * 2**30))
        return pack_size(recipes, room)

    sizes = [size(gib) for gib in (0.1, 0.7, 1, 2, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] <= module.MAX_PACK
    assert len(set(sizes)) > 2
    assert size(2, module.ROOM / 2) == sizes[2] < sizes[3]  # half of 2 GiB is 1 GiB

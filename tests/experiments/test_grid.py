"""Tests of grids: every combination once, rules for alpha, and shares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import BadValue, Grid, LoRA, PromptTuning, Recipe
from lora_lab.experiments.grid import alpha_of, share


def test_grid_has_every_combination_once():
    recipes = Grid(rank=[1, 2], alpha=[8, 16], lr=[1e-3, 2e-3], seed=range(3), targets=["q,v", "k"]).recipes("m", "t")
    assert len(recipes) == 2 * 2 * 2 * 3 * 2
    assert {(r.method.targets, r.method.rank, r.method.alpha, r.lr, r.seed) for r in recipes} == {
        (targets, rank, alpha, lr, seed)
        for targets in (("q", "v"), ("k",)) for rank in (1, 2) for alpha in (8, 16) for lr in (1e-3, 2e-3)
        for seed in range(3)
    }  # fmt: skip


def test_numpy_values_give_the_same_hashes():
    ranks, alphas, rates = np.arange(1, 4), np.array([8, 16]), np.array([1e-3, 2e-3])
    actual = Grid(rank=ranks, alpha=alphas, lr=rates, seed=[np.int64(1)]).recipes("m", "t", steps=np.int64(5))
    expected = Grid(rank=[1, 2, 3], alpha=[8, 16], lr=[1e-3, 2e-3], seed=1).recipes("m", "t", steps=5)
    assert [recipe.hash for recipe in actual] == [recipe.hash for recipe in expected]


def test_method_supplies_what_the_grid_does_not():
    method = LoRA(4, 2, ("k", "v"), dora=True)
    assert [recipe.method for recipe in Grid(method=method, lr=[1e-3, 2e-3]).recipes("m", "t")] == [method, method]
    with pytest.raises(BadValue, match="only lora has a grid"):
        Grid(rank=[1, 2], method=PromptTuning()).recipes("m", "t")


def test_alpha_follows_a_rule():
    rules = {"fixed:16": [16, 16], "fixed": [16, 16], "rank": [4, 64], "2rank": [8, 128], "sqrt:4": [8, 32]}
    for rule, alphas in rules.items():
        assert [alpha_of(rule, rank) for rank in (4, 64)] == alphas
        assert [recipe.method.alpha for recipe in Grid(rank=[4, 64], alpha=rule).recipes("m", "t")] == alphas


@given(n=st.integers(1, 50), count=st.integers(0, 120))
def test_shares_cover_the_grid_in_equal_parts(n, count):
    recipes = [Recipe("m", "t", seed=seed) for seed in range(count)]
    parts = [share(recipes, f"{i}/{n}") for i in range(1, n + 1)]
    assert sorted(recipe.seed for part in parts for recipe in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("words", ["0/4", "5/4", "1", "a/b", "²/3"])
def test_invalid_share_is_refused(words):
    with pytest.raises(BadValue, match="i/n"):
        share([], words)

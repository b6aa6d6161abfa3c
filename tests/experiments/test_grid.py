"""Grids: every combination once, alpha by rule, shares that add up, and what cannot be refused before anything runs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lab import BadValue, Grid, LoRA, PromptTuning, Recipe
from lora_lab.experiments.grid import alpha_of, share


def test_every_combination_comes_once():
    recipes = Grid(rank=[1, 2], alpha=[8, 16], lr=[1e-3, 2e-3], seed=range(3), targets=["q,v", "k"]).recipes("m", "t")
    assert len(set(recipes)) == len(recipes) == 2 * 2 * 2 * 3 * 2
    assert {r.method.targets for r in recipes} == {("q", "v"), ("k",)}
    assert {(r.method.rank, r.method.alpha, r.lr, r.seed) for r in recipes if r.method.targets == ("k",)} == {
        (rank, alpha, lr, seed) for rank in (1, 2) for alpha in (8, 16) for lr in (1e-3, 2e-3) for seed in range(3)
    }


def test_values_of_numpy_make_the_same_recipes():
    ranks, alphas, rates = np.arange(1, 4), np.array([8, 16]), np.array([1e-3, 2e-3])
    found = Grid(rank=ranks, alpha=alphas, lr=rates, seed=[np.int64(1)]).recipes("m", "t", steps=np.int64(5))
    wanted = Grid(rank=[1, 2, 3], alpha=[8, 16], lr=[1e-3, 2e-3], seed=1).recipes("m", "t", steps=5)
    assert [one.hash for one in found] == [one.hash for one in wanted]
    with pytest.raises(BadValue, match="only lora has a grid"):
        Grid(rank=ranks, method=PromptTuning()).recipes("m", "t")
    own = LoRA(4, 2, ("k", "v"), dora=True)
    assert [recipe.method for recipe in Grid(method=own, lr=[1e-3, 2e-3]).recipes("m", "t")] == [own, own]


def test_alpha_follows_a_rule():
    rules = {"fixed:16": [16, 16], "fixed": [16, 16], "rank": [4, 64], "2rank": [8, 128], "sqrt:4": [8, 32]}
    for rule, alphas in rules.items():
        assert [alpha_of(rule, rank) for rank in (4, 64)] == alphas
        assert [r.method.alpha for r in Grid(rank=[4, 64], alpha=rule).recipes("m", "t")] == alphas


@given(n=st.integers(1, 50), count=st.integers(0, 120))
def test_shares_add_up_and_none_is_much_larger(n, count):
    recipes = [Recipe("m", "t", seed=seed) for seed in range(count)]
    parts = [share(recipes, f"{i}/{n}") for i in range(1, n + 1)]
    assert sorted(r.seed for part in parts for r in part) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_share_is_i_of_n():
    for words in ("0/4", "5/4", "1", "a/b", "²/3"):
        with pytest.raises(BadValue, match="i/n"):
            share([], words)

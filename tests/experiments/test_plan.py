"""Packs: alike enough, no larger than the memory, and no recipe lost."""

from __future__ import annotations

import pytest

from lora_lab import Grid, LoRA, Recipe
from lora_lab.experiments import plan
from lora_lab.experiments.plan import pack_size, packs
from lora_lab.training.pack import key

GRID = Grid(rank=[1, 2, 4, 8], lr=[1e-3, 2e-3], seed=range(3), targets=["q,v", "all-linear"])


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(plan, "cut", lambda members, where: [16, 16])


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_every_recipe_is_in_one_pack_and_packs_are_nearly_equal(size):
    recipes = GRID.recipes("minilm", "rt")
    found = packs(recipes, size=size)
    assert sorted(r.hash for pack in found for r in pack) == sorted(r.hash for r in recipes)
    assert max(map(len, found)) <= size
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert all(len({key(r) for r in pack}) == 1 for pack in found)


def test_what_cannot_share_a_base_is_a_pack_of_its_own():
    recipes = [Recipe("minilm", "rt", LoRA(r), dropout=d, steps=s) for r in (1, 2) for d in (0, 1) for s in (5, 6)]
    assert sorted(map(len, packs(recipes, size=8))) == [1, 1, 1, 1, 2, 2]


def test_less_memory_makes_smaller_packs_down_to_one(monkeypatch):
    recipes = Grid(rank=8, seed=range(40)).recipes("minilm", "rt", batch=16)
    sizes = []
    for gib in (0.1, 0.7, 1, 2, 100):
        monkeypatch.setattr(plan, "free_bytes", lambda where, gib=gib: int(gib * 2**30))
        sizes.append(pack_size(recipes))
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] <= plan.MOST
    assert len(set(sizes)) > 2


def test_a_share_of_the_memory_makes_packs_as_that_much_memory_would(monkeypatch):
    recipes = Grid(rank=8, seed=range(40)).recipes("minilm", "rt", batch=16)
    monkeypatch.setattr(plan, "free_bytes", lambda where: 2 * 2**30)
    half = [len(pack) for pack in packs(recipes, room=plan.ROOM / 2)]
    whole = [len(pack) for pack in packs(recipes)]
    monkeypatch.setattr(plan, "free_bytes", lambda where: 2**30)
    assert half == [len(pack) for pack in packs(recipes)] != whole


def test_speed_decides_where_memory_does_not(monkeypatch):
    recipes = Grid(seed=range(40)).recipes("minilm", "rt", batch=8)
    monkeypatch.setattr(plan, "free_bytes", lambda where: 2**40)
    found = []
    for cores in (1, 2, 4, 100):
        monkeypatch.setattr(plan, "cut", lambda members, where, cores=cores: [1] * cores)
        found.append(pack_size(recipes))
    assert found == [plan.LEAST, 16, plan.MOST, plan.MOST]


def test_a_pack_of_different_targets_is_as_small_as_its_largest_members_need(monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda where: 2**30)
    few = [Recipe("minilm", "rt", LoRA(16, targets=("q", "v")), seed=seed) for seed in range(20)]
    many = [Recipe("minilm", "rt", LoRA(8, targets="all-linear"), seed=seed) for seed in range(20)]
    assert pack_size(few + many) == pack_size(many) < pack_size(few)

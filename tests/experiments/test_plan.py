"""Packs: alike enough, no larger than the memory, and no recipe lost."""

import pytest

from lora_lab import Grid, LoRA, Recipe
from lora_lab.experiments import sweep as plan
from lora_lab.experiments.sweep import pack_size, packs
from lora_lab.training.pack import key

GRID = Grid(rank=[1, 2, 4, 8], lr=[1e-3, 2e-3], seed=range(3), targets=["q,v", "all-linear"])


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(plan, "cut", lambda members, where: [16, 16])


@pytest.mark.parametrize("size", [1, 7])
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
    monkeypatch.setattr(plan, "free_bytes", lambda where: 2**31)
    assert pack_size(recipes, plan.ROOM / 2) == sizes[2] < pack_size(recipes) == sizes[3]  # half of 2 GiB is 1 GiB

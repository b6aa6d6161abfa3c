"""Tests of how a sweep groups recipes into packs."""

import pytest

from lora_lab import Grid, LoRA, Recipe
from lora_lab.experiments import sweep as module
from lora_lab.experiments.sweep import pack_size, packs
from lora_lab.training.pack import key


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(module, "cut", lambda members, where: [16, 16])


@pytest.mark.parametrize("size", [1, 7])
def test_packs_are_nearly_equal_and_hold_every_recipe(size):
    grid = Grid(rank=[1, 2, 4, 8], lr=[1e-3, 2e-3], seed=range(3), targets=["q,v", "all-linear"])
    recipes = grid.recipes("minilm", "rt")
    found = packs(recipes, size=size)
    assert sorted(recipe.hash for pack in found for recipe in pack) == sorted(recipe.hash for recipe in recipes)
    assert max(map(len, found)) <= size
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert all(len({key(recipe) for recipe in pack}) == 1 for pack in found)


def test_runs_that_cannot_share_a_base_are_packed_apart():
    recipes = [Recipe("minilm", "rt", LoRA(r), dropout=d, steps=s) for r in (1, 2) for d in (0, 1) for s in (5, 6)]
    assert sorted(map(len, packs(recipes, size=8))) == [1, 1, 1, 1, 2, 2]


def test_pack_size_falls_with_memory(monkeypatch):
    recipes = Grid(rank=8, seed=range(40)).recipes("minilm", "rt", batch=16)

    def size(gib: float, room: float = module.ROOM) -> int:
        monkeypatch.setattr(module, "free_bytes", lambda where: int(gib * 2**30))
        return pack_size(recipes, room)

    sizes = [size(gib) for gib in (0.1, 0.7, 1, 2, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] <= module.MOST
    assert len(set(sizes)) > 2
    assert size(2, module.ROOM / 2) == sizes[2] < sizes[3]  # half of 2 GiB is 1 GiB

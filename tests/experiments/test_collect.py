"""Tests of merging stores: every run once, zip files, failed and unreadable runs, and different data files."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lora_lab import BadValue, Grid, Recipe, Store, sweep
from lora_lab.experiments.grid import share
from lora_lab.experiments.results import collect, from_store, load
from lora_lab.training.runs import failed
from tests.conftest import PLAIN

COLUMNS = ["hash", "rank", "lr", "seed", "accuracy", "validation_accuracy", "status"]


@pytest.fixture
def grid(tiny_encoder, opinions):
    """`grid(lr=[1e-2, 1e-3])`: recipes that train in a moment."""

    def make(**axes) -> list[Recipe]:
        return Grid(**axes).recipes(tiny_encoder, opinions, steps=2, batch=4, validations=1, **PLAIN)

    return make


def test_forty_shares_make_the_whole(grid, tmp_path):
    recipes = grid(rank=[1, 2, 4], lr=[1e-2, 3e-3], seed=range(2))
    whole = sweep(recipes, tmp_path / "whole")
    for i in range(1, 41):
        laptop = tmp_path / "class" / f"laptop{i}" / "runs"
        for recipe in share(recipes, f"{i}/40"):
            shutil.copytree(tmp_path / "whole" / recipe.hash, laptop / recipe.hash)
            shutil.copy(tmp_path / "whole" / f"{recipe.hash}.json", laptop)
    collected = collect([tmp_path / "class"], tmp_path / "all")
    assert (collected.taken, collected.repeated, collected.unreadable) == (12, 0, {})
    assert load(tmp_path / "all")[COLUMNS].equals(whole.frame[COLUMNS])
    run = from_store(tmp_path / "all").runs[0]
    assert Path(run.adapter).parent == tmp_path / "all"
    assert (Path(run.adapter) / "adapter_model.safetensors").is_file()
    assert run.predictions is not None
    assert collect([tmp_path / "class"], tmp_path / "all").repeated == 12


def test_zip_file_is_a_read_only_store(grid, tmp_path):
    sweep(grid(lr=[1e-2, 1e-3]), tmp_path / "ada")
    file = Path(shutil.make_archive(str(tmp_path / "ada"), "zip", tmp_path / "ada"))
    assert load(file).equals(load(tmp_path / "ada"))
    first, second = Store(file).runs()
    assert (Store(tmp_path / "ada").find(first.recipe).predictions == first.predictions).all()
    with pytest.raises(BadValue, match="choose another folder"):
        Store(file).add(first)
    assert collect([file], tmp_path / "all").taken == 2
    assert (tmp_path / "all" / first.recipe.hash / "adapter_model.safetensors").is_file()
    member = zipfile.ZipFile(file).getinfo(f"{second.recipe.hash}.json")
    content = bytearray(file.read_bytes())
    content[member.header_offset + 60 : member.header_offset + 90] = bytes(30)  # damages the compressed record
    file.write_bytes(content)
    collected = collect([file], tmp_path / "rest")
    assert (collected.taken, list(collected.unreadable)) == (1, [f"{file}/{member.filename}"])


def test_finished_run_replaces_a_failed_one(grid, tmp_path):
    (recipe,) = grid()
    Store(tmp_path / "a").add(failed(recipe, "memory ran out"))
    Store(tmp_path / "b").add(replace(failed(recipe, ""), status="done"))
    unreadable = tmp_path / "b" / "0123456789ab.json"
    unreadable.write_text("{}")
    collected = collect([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert Store(tmp_path / "all").find(recipe).status == "done"
    assert list(collected.unreadable) == [str(unreadable)]


def test_runs_on_the_most_common_data_file_are_kept(grid, tmp_path):
    for seed, (name, data) in enumerate((("ada", "saved by Excel"), ("ben", "as given"), ("cem", "as given"))):
        (recipe,) = grid(seed=seed)
        Store(tmp_path / "class" / name).add(replace(failed(recipe, ""), status="done", environment={"data": data}))
    (tmp_path / "class" / "ada" / "0123456789ab.json").write_text('{"environment": 3}')
    collected = collect([tmp_path / "class"], tmp_path / "all")
    assert (collected.taken, {Path(file).parent.name for file in collected.unreadable}) == (2, {"ada"})
    assert any("differs from" in reason for reason in collected.unreadable.values())
    later = collect([tmp_path / "class" / "ada", tmp_path / "class" / "cem"], tmp_path / "all")
    assert (later.taken, later.repeated) == (0, 1)  # runs in the target store count too

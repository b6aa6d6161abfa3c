"""Forty laptops' stores in one: all of it, each run once, and no word lost on what cannot be read."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lora_lab import BadValue, Grid, Store, sweep
from lora_lab.experiments.grid import share
from lora_lab.experiments.results import collect, from_store, load
from lora_lab.training.runs import failed
from tests.conftest import PLAIN

SHARED = {"steps": 2, "batch": 4, "validations": 1, **PLAIN}
SAME = ["hash", "rank", "lr", "seed", "accuracy", "validation_accuracy", "status"]


def test_forty_shares_collected_are_the_whole(tiny_encoder, opinions, tmp_path):
    recipes = Grid(rank=[1, 2, 4], lr=[1e-2, 3e-3], seed=range(2)).recipes(tiny_encoder, opinions, **SHARED)
    whole = sweep(recipes, tmp_path / "whole")
    for i in range(1, 41):  # that what trains alone is what trains in a pack is tested elsewhere
        laptop = tmp_path / "class" / f"laptop{i}" / "runs"
        for recipe in share(recipes, f"{i}/40"):
            shutil.copytree(tmp_path / "whole" / recipe.hash, laptop / recipe.hash)
            shutil.copy(tmp_path / "whole" / f"{recipe.hash}.json", laptop)
    found = collect([tmp_path / "class"], tmp_path / "all")
    assert (found.taken, found.repeated, found.unreadable) == (12, 0, {})
    assert load(tmp_path / "all")[SAME].equals(whole.frame[SAME])
    run = from_store(tmp_path / "all").runs[0]
    assert Path(run.adapter).parent == tmp_path / "all"
    assert (Path(run.adapter) / "adapter_model.safetensors").is_file()
    assert run.predictions is not None
    assert collect([tmp_path / "class"], tmp_path / "all").repeated == 12  # again: nothing doubled


def test_a_zip_file_is_read_like_the_store_it_holds_and_not_written_to(tiny_encoder, opinions, tmp_path):
    sweep(Grid(lr=[1e-2, 1e-3]).recipes(tiny_encoder, opinions, **SHARED), tmp_path / "ada")
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
    content[member.header_offset + 60 : member.header_offset + 90] = bytes(30)  # within the compressed record
    file.write_bytes(content)
    found = collect([file], tmp_path / "rest")
    assert (found.taken, list(found.unreadable)) == (1, [f"{file}/{member.filename}"])


def test_a_finished_run_stands_before_a_failed_one_and_the_unreadable_is_named(tiny_encoder, opinions, tmp_path):
    good, bad = (Grid(lr=lr).recipes(tiny_encoder, opinions, **SHARED) for lr in (1e-2, 1e30))
    sweep(bad, tmp_path / "a")
    sweep(good, tmp_path / "b")
    failed, done = Store(tmp_path / "a").runs()[0], Store(tmp_path / "b").runs()[0]
    Store(tmp_path / "a").add(type(failed)(**{**vars(failed), "recipe": done.recipe}))
    (tmp_path / "b" / "0123456789ab.json").write_text("{}")
    found = collect([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert Store(tmp_path / "all").find(done.recipe).status == "done"
    assert list(found.unreadable) == [str(tmp_path / "b" / "0123456789ab.json")]


def test_the_file_that_most_laptops_had_is_kept_not_the_first_ones(tiny_encoder, opinions, tmp_path):
    for seed, (name, data) in enumerate((("ada", "saved by Excel"), ("ben", "as given"), ("cem", "as given"))):
        (recipe,) = Grid(seed=seed).recipes(tiny_encoder, opinions, **SHARED)
        Store(tmp_path / "class" / name).add(replace(failed(recipe, ""), status="done", environment={"data": data}))
    (tmp_path / "class" / "ada" / "0123456789ab.json").write_text('{"environment": 3}')
    found = collect([tmp_path / "class"], tmp_path / "all")
    assert (found.taken, {Path(file).parent.name for file in found.unreadable}) == (2, {"ada"})
    assert any("differs from" in reason for reason in found.unreadable.values())
    later = collect([tmp_path / "class" / "ada", tmp_path / "class" / "cem"], tmp_path / "all")
    assert (later.taken, later.repeated) == (0, 1)  # what the store has counts too

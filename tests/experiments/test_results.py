import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_course.claims.evidence import Cells
from lora_course.panels.class_panel import ClassPanel
from lora_lab import FullFineTuning, LoRA, Recipe, Store, load_task, sweep, verdict
from lora_lab.errors import Changed, LabWarning, NotFound
from lora_lab.experiments.results import Runs, collect, from_store, load
from lora_lab.training.device import Choice, environment
from lora_lab.training.runs import Run, failed
from tests.conftest import assert_raises, made_run

BF16, FP32 = Choice("cpu", "bf16", "eager"), Choice("cpu", "fp32", "eager")


def finished_run(seed: int, choice: Choice, *, lr: float = 2e-3, method=None, accuracy: float = 0.8) -> Run:
    recipe = Recipe("minilm", "rt", method or LoRA(), seed=seed, lr=lr)
    return made_run(recipe, np.zeros(2000, dtype=int), environment(choice), accuracy=accuracy)


@pytest.fixture
def two_stores(tmp_path) -> tuple[Path, Path]:
    """Three seeds of a recipe from a machine that chooses bf16, and two more from one that chooses fp32."""
    for seed in range(5):
        name, choice, accuracy = ("ada", BF16, 0.8) if seed < 3 else ("ben", FP32, 0.6)
        Store(tmp_path / name).add(finished_run(seed, choice, accuracy=accuracy))
    return tmp_path / "ada", tmp_path / "ben"


def test_zip_file_from_windows_powershell_is_read(two_stores, tmp_path):
    ada, _ = two_stores
    with zipfile.ZipFile(tmp_path / "ada.zip", "w") as packed:
        for file in filter(Path.is_file, ada.rglob("*")):
            packed.write(file, "\\".join(("ada", "runs", *file.relative_to(ada).parts)))
    assert load(tmp_path / "ada.zip").equals(load(ada))


def test_frame_has_settings_metrics_and_the_last_validation(tmp_path):
    Store(tmp_path).add(finished_run(3, FP32, lr=1e-3))
    (row,) = load(tmp_path).to_dict("records")
    expected = {"rank": 8, "alpha": 16, "lr": 1e-3, "seed": 3, "targets": "q,v", "accuracy": 0.8, "status": "done"}
    expected |= {"start": "", "dora": False}
    assert {name: row[name] for name in expected} == expected
    assert row["validation_accuracy"] == pytest.approx(0.8)
    assert list(Runs(()).frame) == ["hash", "status"]
    unscored = Runs((replace(finished_run(0, FP32), predictions=None),))
    language = Runs((made_run(Recipe("m", "kjv"), loss=1.5),))
    assert_raises("has no predictions; score it again", verdict, unscored, unscored)
    other = Runs((replace(finished_run(0, FP32), predictions=np.zeros(9)),))
    assert_raises("the number of test rows differs", verdict, other, other, error=Changed)
    assert_raises("none of these 0 runs finished", lambda: Runs(()).accuracy)
    assert_raises("kjv has no accuracy, only loss", lambda: language.accuracy)
    assert_raises(r"existing values are {'rank': \['8'\]}", unscored.at, rank=[1, 2], error=NotFound)
    for same in ("v,q", ("v", "q"), np.array(["v", "q"])):
        assert len(unscored.at(targets=same, rank=np.int64(8), model=Path("minilm"))) == 1
    assert_raises("there is no folder .*rusn", load, tmp_path / "rusn", error=NotFound)


def test_a_seed_counts_once_and_is_paired_with_itself():
    two_rates = Runs(tuple(finished_run(seed, FP32, lr=lr) for seed in range(3) for lr in (1e-3, 2e-3)))
    for pool in (two_rates.runs, (two_rates.runs[0], two_rates.runs[3])):  # with the same seeds, and with others
        assert_raises("these runs differ in lr ", verdict, Runs(pool), two_rates.at(lr=1e-3))
    a = two_rates.runs[0]
    other_task = replace(a, recipe=replace(a.recipe, task="imdb", seed=5))
    assert_raises("different rows, from imdb and rt", verdict, Runs(two_rates.runs[:1]), Runs((other_task,)))
    assert_raises("different rows, from imdb and rt", lambda: Runs((a, other_task)).accuracy)
    copies = [replace(run, environment={"data": "the same"}) for run in (a, other_task)]
    assert len(Runs(tuple(copies)).accuracy) == 2  # two students' copies of a file
    labels, sides = np.array(load_task("rt").test.labels), []
    for lr, least in ((1e-3, 0.5), (2e-3, 0.52)):
        answers = [np.where(np.arange(2000) < 2000 * (least + seed / 10), labels, 1 - labels) for seed in range(5)]
        sides.append([replace(finished_run(seed, FP32, lr=lr), predictions=answers[seed]) for seed in range(5)])
    a, b = sides
    whole = verdict(Runs(tuple(a[1:4])), Runs(tuple(b[1:4])))
    assert verdict(Runs(tuple(a[1:])), Runs(tuple(b[:4]))) == whole  # each side lost a different seed
    assert whole.difference == pytest.approx(-0.02, abs=0.001)


@pytest.mark.filterwarnings("error::lora_lab.errors.LabWarning")
def test_pooling_warns_of_different_dtypes_only(two_stores):
    for store in two_stores:
        assert len(from_store(store).scores) == len(from_store(store).accuracy) > 1
    full = Runs(tuple(finished_run(seed, FP32, method=FullFineTuning()) for seed in range(3)))
    verdict(from_store(two_stores[0]), full)  # full fine-tuning uses fp32 on every machine
    runs = Runs(tuple(run for store in two_stores for run in Store(store).runs()))
    a = Runs(tuple(finished_run(seed, BF16, lr=1e-3) for seed in range(2)))
    b = Runs(tuple(finished_run(seed, FP32, lr=2e-3) for seed in range(2)))
    for pool in (lambda: runs.accuracy, lambda: runs.scores, lambda: verdict(runs, runs), lambda: verdict(a, b)):
        with pytest.warns(LabWarning, match="different dtypes"):
            pool()
    assert len(runs.at(run_dtype="bf16")) == 3


@pytest.mark.filterwarnings("ignore::lora_lab.errors.LabWarning")
def test_class_map_and_evidence_use_one_dtype(two_stores, tmp_path):
    panel = ClassPanel(tmp_path, tmp_path.with_name("all"))
    assert {result.dtype for result in panel.playground.results} == {"bf16"}
    assert panel.classroom["left_out"] == "Left out: 2 runs in another dtype."
    collect(two_stores, tmp_path / "all")
    with pytest.warns(LabWarning, match="3 in bf16 and 2 in fp32"):
        sweep([run.recipe for run in Store(tmp_path / "all").runs()], tmp_path / "all")
    cells = Cells(tmp_path / "all", "")
    assert len(cells.runs) == 3
    assert "3 of 5 runs" in cells.made
    assert cells.made.endswith("in bf16")


def test_zip_file_is_a_read_only_store_and_collected_into_a_folder_that_may_move(grid, tmp_path):
    sweep(grid(rank=1, steps=2), tmp_path / "ada")
    file = Path(shutil.make_archive(str(tmp_path / "ada"), "zip", tmp_path / "ada"))
    assert load(file).drop(columns="adapter").equals(load(tmp_path / "ada").drop(columns="adapter"))
    first, second = Store(file).runs()
    assert (Store(tmp_path / "ada").find(first.recipe).predictions == first.predictions).all()
    assert_raises("choose another folder", Store(file).add, first)
    assert collect([file], tmp_path / "all").taken == 2
    assert load(tmp_path / "all").drop(columns="adapter").equals(load(file).drop(columns="adapter"))
    (tmp_path / "all").rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved").find(first.recipe)
    assert (moved.predictions == first.predictions).all()
    assert [Path(adapter).parent for adapter in load(tmp_path / "moved")["adapter"]] == [tmp_path / "moved"] * 2
    assert Path(moved.adapter).parent == tmp_path / "moved"
    assert (Path(moved.adapter) / "adapter_model.safetensors").is_file()
    member = zipfile.ZipFile(file).getinfo(f"{second.recipe.hash}.json")
    content = bytearray(file.read_bytes())
    content[member.header_offset + 60 : member.header_offset + 90] = bytes(30)  # damages the compressed record
    file.write_bytes(content)
    collected = collect([file], tmp_path / "rest")
    assert (collected.taken, list(collected.unreadable)) == (1, [f"{file}/{member.filename}"])


def test_zip_files_are_collected_as_people_make_them(two_stores, tmp_path):
    ada, ben = two_stores
    handed_in = tmp_path / "class" / "pair 1"
    handed_in.mkdir(parents=True)
    file = Path(shutil.make_archive(str(handed_in / "ada"), "zip", tmp_path, ada.name))  # with the folder itself
    assert load(file).equals(load(ada))
    Path(shutil.make_archive(str(ben), "zip", ben)).rename(handed_in / "BEN.ZIP")
    shutil.make_archive(str(handed_in / "both"), "zip", tmp_path, ".")
    (handed_in / "damaged.zip").write_bytes(file.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    with pytest.warns(LabWarning, match="3 in bf16 and 2 in fp32"):
        collected = collect([tmp_path / "class", tmp_path / "empty"], tmp_path / "all")
    assert (collected.taken, collected.repeated) == (5, 5)
    skipped = {Path(name).name: reason for name, reason in collected.unreadable.items()}
    assert skipped.keys() == {"damaged.zip", "empty", "ada.zip", "BEN.ZIP", "both.zip"}  # three are inside both.zip
    assert "unpack" in skipped["ada.zip"]
    assert "move it out of the store" in skipped["damaged.zip"]


def test_finished_run_replaces_a_failed_one(grid, tmp_path):
    (recipe,) = grid(rank=1, lr=1e-2)
    Store(tmp_path / "a").add(failed(recipe, "memory ran out"))
    Store(tmp_path / "b").add(replace(failed(recipe, ""), status="done"))
    unreadable = tmp_path / "b" / "0123456789ab.json"
    unreadable.write_text("{}")
    collected = collect([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert Store(tmp_path / "all").find(recipe).status == "done"
    assert list(collected.unreadable) == [str(unreadable)]


def test_runs_on_the_most_common_data_and_model_are_kept(grid, tmp_path):
    for seed, (name, content) in enumerate((("ada", "saved by Excel"), ("ben", "as given"), ("cem", "as given"))):
        (recipe,) = grid(rank=1, lr=1e-2, seed=seed)
        run = replace(failed(recipe, ""), status="done", environment={"weights": content})
        Store(tmp_path / "class" / name).add(run)
    (tmp_path / "class" / "ada" / "0123456789ab.json").write_text('{"environment": 3}')
    collected = collect([tmp_path / "class"], tmp_path / "all")
    assert (collected.taken, {Path(file).parent.name for file in collected.unreadable}) == (2, {"ada"})
    assert any("a different version of" in reason for reason in collected.unreadable.values())
    later = collect([tmp_path / "class" / "ada", tmp_path / "class" / "cem"], tmp_path / "all")
    assert (later.taken, later.repeated) == (0, 1)  # runs in the target store count too

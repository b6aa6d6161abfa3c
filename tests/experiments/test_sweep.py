import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lora_lab as lab
from lora_lab import BadValue, FullFineTuning, Grid, LoRA, NotFound, Probe, Recipe, Store, load_tokenizer, sweep, train
from lora_lab.errors import Changed
from lora_lab.experiments.sweep import Sweep
from lora_lab.training.evaluate import Score, logits_of
from lora_lab.training.pack import Pack
from lora_lab.training.text_files import SPLITS
from tests.conftest import PLAIN, assert_raises, make_model
from tests.experiments.conftest import on_step


def outcomes(runs) -> dict[str, tuple]:
    """Return what must be equal in two sweeps, by recipe."""
    return {
        run.recipe.hash: (run.status, run.metrics.get("accuracy"), np.round(run.history["loss"], 5).tolist())
        for run in runs
    }


def test_second_sweep_trains_only_new_recipes(grid, tmp_path, monkeypatch):
    rng, recipes = random.Random(0), grid(seed=[0, 1])
    monkeypatch.setattr("time.time", lambda: rng.uniform(0, 4e9))  # even if the clock jumps, the results are the same
    swept = sweep(recipes, tmp_path, size=np.int64(3))
    assert 0 < sum(run.seconds for run in swept.runs) <= swept.seconds < 600
    for record in tmp_path.glob("*.json"):
        os.utime(record, (rng.uniform(0, 4e9),) * 2)
    assert [run.recipe for run in swept.runs] == recipes
    assert (swept.packs, swept.skipped, swept.failed) == ((3, 3, 2), 0, 0)
    assert all(run.status == "done" and Path(run.adapter, "adapter_model.safetensors").is_file() for run in swept.runs)
    again = sweep([*recipes, *grid(seed=2)], tmp_path)
    assert (again.skipped, sum(again.packs)) == (8, 4)
    assert outcomes(again.runs[:8]) == outcomes(swept.runs)
    assert not list((tmp_path / "unfinished").glob("*"))


def test_run_without_enough_memory_fails_alone(grid, tmp_path, monkeypatch):
    def refuse(recipe, *_) -> None:
        if recipe.method.rank == 4:
            raise BadValue("this run may need 9 GiB and 1 GiB are free")

    monkeypatch.setattr("lora_lab.training.pack.check_memory", refuse)
    bad, good = sweep(grid(lr=1e-2, rank=[4, 1]), tmp_path).runs
    assert (bad.status, good.status) == ("failed", "done")
    assert "this run may need" in bad.error


def test_run_alone_may_train_a_parameter_without_a_gradient(tiny_encoder, opinions, tmp_path):
    """XLNet uses its mask embedding only in pretraining, so AdamW keeps no state for it."""
    tokenizer, size = load_tokenizer(tiny_encoder), {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}
    make_model("XLNetModel", {"vocab_size": len(tokenizer), **size}).save_pretrained(tmp_path / "xlnet")
    tokenizer.save_pretrained(tmp_path / "xlnet")
    recipe = Recipe(str(tmp_path / "xlnet"), opinions, FullFineTuning(), lr=1e-4, steps=4, batch=8, **PLAIN)
    (run,) = sweep([recipe], tmp_path / "runs").runs
    assert run.status == "done"


def test_run_with_a_nan_test_loss_fails_alone(grid, tmp_path, monkeypatch):
    scores = [Score({"accuracy": 0.5, "loss": loss}, np.zeros(4, int)) for loss in (float("nan"), 0.7)]
    monkeypatch.setattr("lora_lab.training.pack.Pack.score", lambda pack, split: scores)
    bad, good = sweep(grid(lr=1e-2, validations=0), tmp_path).runs
    assert (bad.status, bad.adapter, good.status) == ("failed", None, "done")
    assert "the test loss became nan: lower the rate" in str(bad.error)


def test_impossible_recipes_are_refused_before_training(grid, tmp_path):
    unknown = [replace(recipe, model="minilmm") for recipe in grid()]
    cases = [(grid(rank=[1, 33]), "rank 33 is above"), (unknown, "no model 'minilmm'"), (grid(dtype="int9"), "'int9'")]
    for recipes, message in cases:
        assert_raises(message, sweep, recipes, tmp_path / "runs", error=(BadValue, NotFound))
    for what in ("minilm", None, [LoRA()]):
        assert_raises("a list of recipes", sweep, what, tmp_path / "runs")
    for options, message in (({"size": -1}, "size"), ({"client": 3}, "no Dask scheduler"), ({"store": 3}, "not 3")):
        assert_raises(message, sweep, grid(), **{"store": tmp_path / "runs", **options})
    assert Store(tmp_path / "runs").runs() == []


def test_too_long_prompt_in_the_test_split_is_noticed_before_training(grid, tiny_causal, tmp_path):
    rows = [{"prompt": f"{n}?", "response": "yes", "split": SPLITS[n % 3]} for n in range(12)]
    for name, prompt in (("long", "long " * 40), ("good", "?")):
        content = [*rows, {"prompt": prompt, "response": "no", "split": "test"}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    (recipe,) = grid(rank=1, lr=1e-2)
    long, good = (replace(recipe, model=tiny_causal, task=str(tmp_path / f"{n}.jsonl")) for n in ("long", "good"))
    assert_raises("after a prompt of 218 tokens", train, long, store=tmp_path / "runs")
    with pytest.raises(BadValue, match=r"probe needs a task with labels, but .*good\.jsonl has none"):
        sweep([replace(good, method=Probe()), good], tmp_path / "runs")
    with pytest.raises(BadValue, match="max_length 9999 exceeds the 2048 tokens"):
        sweep([replace(good, max_length=9999), good], tmp_path / "runs")
    with pytest.raises(BadValue, match="after 2040 virtual tokens"):
        sweep([replace(good, method=lab.PromptTuning(tokens=n)) for n in (2040, 4)], tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    swept = sweep([long, good], tmp_path / "runs")
    assert [(run.status, len(run.history["step"])) for run in swept.runs] == [("failed", 0), ("done", 6)]


@pytest.fixture
def own_file(grid, opinions, tmp_path):
    file = tmp_path / "own.csv"
    file.write_text(Path(opinions).read_text())
    return [replace(recipe, task=str(file)) for recipe in grid(lr=1e-2)], file


def swap_labels(file: Path) -> None:
    file.write_text(file.read_text().replace("awful,bad", "awful,good").replace("lovely,good", "lovely,bad"))


def test_runs_on_an_edited_file_are_refused(own_file, tmp_path):
    recipes, file = own_file
    runs, original, stop = sweep(recipes, tmp_path / "runs"), file.read_text(), threading.Event()
    stopped = sweep(recipes, tmp_path / "stopped", stop=stop, on_event=on_step(lambda progress: stop.set()))
    assert len(stopped) == 0
    swap_labels(file)
    new_seeds = [recipe.at_seed(9) for recipe in recipes]
    for store, wanted in (("runs", recipes), ("runs", new_seeds), ("stopped", recipes)):
        with pytest.raises(Changed, match=r"own\.csv has changed since runs were trained on it.*another store"):
            sweep(wanted, tmp_path / store)
    assert_raises("has changed", train, new_seeds[0], store=tmp_path / "runs", error=Changed)
    with pytest.raises(Changed, match="has changed"):
        _ = runs.at(rank=1).scores  # old predictions against new labels
    assert sweep(recipes, tmp_path / "others").skipped == 0
    file.write_text(original)
    (tmp_path / "runs" / f"{'0' * 12}.json").write_text("{}")  # another run's record is damaged: train, and name it
    assert sweep(recipes, tmp_path / "runs").skipped == 2
    (record := tmp_path / "runs" / f"{recipes[0].hash}.json").write_text("{")
    with pytest.raises(BadValue, match=f"{record.name} is not a lora_lab run.*move it out of the store"):
        sweep(recipes, tmp_path / "runs")


def test_runs_without_a_fingerprint_still_count(own_file, tmp_path):
    recipes, file = own_file
    sweep(recipes, tmp_path)
    for recipe in recipes:
        path = tmp_path / f"{recipe.hash}.json"
        record = json.loads(path.read_text())
        assert record["environment"].pop("data")
        path.write_text(json.dumps(record))
    swap_labels(file)
    again = sweep(recipes, tmp_path)
    assert (again.skipped, again.at(rank=1).scores.shape) == (2, (1, 16))
    file.write_text(file.read_text() + "".join(f"\nanother {n},good" for n in range(20)))
    with pytest.raises(Changed, match="has changed"):
        _ = again.at(rank=1).scores  # now the number of rows differs


@pytest.mark.parametrize("changing", ["model", "start"])
def test_new_seeds_do_not_join_runs_on_other_weights(changing, grid, tiny_encoder, tmp_path):
    recipes = grid(rank=1, lr=1e-2, steps=2)
    source = tiny_encoder if changing == "model" else sweep(recipes, tmp_path / "first").runs[0].adapter
    folder = shutil.copytree(source, tmp_path / changing)
    recipes = [replace(recipe, **{changing: str(folder)}) for recipe in recipes]
    sweep(recipes, tmp_path / "runs")
    assert sweep(recipes, tmp_path / "runs").skipped == 1
    (file,) = folder.glob("*.safetensors")
    save_file({name: 1.01 * tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(Changed, match=f"{changing} has changed"):
        sweep([recipe.at_seed(9) for recipe in recipes], tmp_path / "runs")


SCRIPT = """
import sys, torch; torch.set_num_threads(1); sys.modules["dask"] = None  # only a cluster needs Dask
from lora_lab import Grid, sweep
sweep(Grid(rank=[1, 4], lr=[1e-2, 3e-3], seed=[0, 1]), sys.argv[1], model=sys.argv[2], task=sys.argv[3], size=4,
      steps=int(sys.argv[4]), batch=8, validations=4, dtype='fp32', attention='eager', device='cpu',
      on_event=lambda event, facts: event == 'step' and print(facts['progress'].step, flush=True))
"""


@pytest.mark.parametrize(("kills", "steps"), [(1, 60), pytest.param(20, 240, marks=pytest.mark.slow)])
def test_killed_sweep_ends_like_an_undisturbed_one(tiny_encoder, opinions, tmp_path, kills, steps):
    """Before the first process is killed, it is suspended, as when a laptop's lid is closed, but it keeps its store."""
    axes, fields = {"rank": [1, 4], "lr": [1e-2, 3e-3], "seed": [0, 1]}, {"batch": 8, "validations": 4, **PLAIN}
    recipes = Grid(**axes).recipes(tiny_encoder, opinions, steps=steps, **fields)
    undisturbed, folder, rng = sweep(recipes, tmp_path / "undisturbed", size=4), tmp_path / "killed", random.Random(0)
    command = [sys.executable, "-c", SCRIPT, str(folder), tiny_encoder, opinions, str(steps)]
    for number in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
            process.stdout.readline()  # it trains
            if number == 0:
                os.kill(process.pid, signal.SIGSTOP)
                assert_raises("another sweep is using", sweep, recipes, folder)
                os.kill(process.pid, signal.SIGCONT)
                process.stdout.readline()  # it continues
            time.sleep(rng.random() * 0.4)
            process.kill()
        assert process.returncode == -signal.SIGKILL or number > 1  # it may have finished
    swept = sweep(recipes, folder, size=4)
    assert [run.recipe for run in swept.runs] == recipes
    for run, expected in zip(swept.runs, undisturbed.runs, strict=True):
        assert run.status == expected.status == "done"
        assert run.history["step"] == list(range(1, steps + 1))  # no step twice
        assert np.allclose(run.history["loss"], expected.history["loss"], rtol=1e-4)
        assert run.metrics["accuracy"] == expected.metrics["accuracy"]
    assert len(Store(folder).runs()) == len(recipes)
    assert not list((folder / "unfinished").glob("*"))


def test_sweep_of_some_runs_keeps_the_checkpoint_of_the_others(grid, tmp_path):
    recipes, stop, steps = grid(rank=1), threading.Event(), list[int]()
    sweep(recipes, tmp_path, stop=stop, on_event=on_step(lambda progress: progress.step == 4 and stop.set()))
    for part in recipes[:1], recipes:
        sweep(part, tmp_path, on_event=on_step(lambda progress: steps.append(progress.step)))
    assert steps == [5, 6, 5, 6]
    assert not list((tmp_path / "unfinished").iterdir())


@pytest.mark.parametrize("killed", [False, True])
def test_run_that_ended_early_at_a_stop_takes_no_further_step(grid, tmp_path, monkeypatch, killed):
    """The run's patience ends at the step of the stop, or the process is killed before the run is stored."""
    first, second = grid(lr=1e-2, steps=12, validations=6)
    recipes, stop = [replace(first, patience=1), second], threading.Event()
    monkeypatch.setattr("lora_lab.training.member.goodness", lambda values: 0.0)  # no validation is better
    monkeypatch.setattr("lora_lab.training.pack.CHECKPOINT_SHARE", 1e9)  # every validation writes a checkpoint
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr("lora_lab.training.pack.Pack._finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
            on_event = on_step(lambda progress: progress.step == 4 and not killed and stop.set())
            sweep(recipes, tmp_path, stop=stop, on_event=on_event)
    stored = [(run.status, run.history["step"]) for run in Store(tmp_path).runs()]
    assert stored == ([] if killed else [("early", [1, 2, 3, 4])])
    steps: list[int] = []
    swept = sweep(recipes, tmp_path, on_event=on_step(lambda progress: steps.append(progress.step)))
    assert [(run.status, run.history["step"][-1]) for run in swept.runs] == [("early", 4), ("done", 12)]
    assert steps[0] == 5
    assert [len(Store(tmp_path).rows(recipe, "validation")) for recipe in recipes] == [8, 8]


@pytest.fixture
def limit_rows(monkeypatch):
    """`limit_rows(8)`: a training step with more rows runs out of memory, as on a GPU."""

    def limit(rows: int) -> None:
        def compute(model, batch):
            if torch.is_grad_enabled() and len(batch.labels) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return logits_of(model, batch)

        monkeypatch.setattr("lora_lab.training.member.logits_of", compute)

    return limit


def test_pack_without_enough_memory_continues_in_halves(grid, tmp_path, limit_rows):
    recipes = grid(seed=[0, 1])
    expected = outcomes(sweep(recipes, tmp_path / "enough").runs)
    limit_rows(2 * 8)  # two runs at a time
    alive, others = weakref.WeakSet(), []

    class CountedPack(Pack):
        def __init__(self, *args, **options) -> None:
            gc.collect()
            others.append(len(alive))
            super().__init__(*args, **options)
            alive.add(self)

    gc.collect()
    gc.freeze()  # collecting torch's own objects each time takes seconds
    try:
        assert outcomes(Sweep(tmp_path / "little", pack=CountedPack).run(recipes).runs) == expected
    finally:
        gc.unfreeze()
    assert len(others) > 1
    assert set(others) == {0}  # the pack that ran out of memory has freed it
    assert not list((tmp_path / "little" / "unfinished").glob("*"))


def test_run_too_large_alone_names_the_batch_to_try(grid, tmp_path, limit_rows, monkeypatch):
    limit_rows(8)
    large, small = grid(batch=16, lr=1e-2, rank=1), grid(lr=1e-2, rank=1)
    swept = sweep([*large, *small], tmp_path)
    assert [run.status for run in swept.runs] == ["failed", "done"]
    assert re.fullmatch(r"memory ran out while training with batch 16: try batch 8, or .*", swept.runs[0].error)
    assert sweep([*large, *small], tmp_path).skipped == 2
    monkeypatch.undo()
    again = sweep([*large, *small], tmp_path, again=True)  # trains only what failed
    assert (again.packs, again.failed) == ((1,), 0)

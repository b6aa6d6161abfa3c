"""Sweeps: nothing twice, nothing lost, whatever fails, stops or is killed."""

import gc
import json
import os
import random
import re
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

from lora_lab import BadValue, Grid, NotFound, Recipe, Store, sweep
from lora_lab.errors import Changed
from lora_lab.experiments.sweep import Sweep
from lora_lab.training.evaluate import Score, logits_of
from lora_lab.training.pack import Pack
from tests.conftest import PLAIN
from tests.experiments.conftest import on_step

SHARED = {"steps": 6, "batch": 8, "validations": 3, **PLAIN}


@pytest.fixture
def grid(tiny_encoder, opinions):
    """`grid(rank=[1, 2])`: recipes on the tiny encoder."""

    def make(**axes) -> list[Recipe]:
        shared = {**SHARED, **{k: axes.pop(k) for k in list(axes) if k in SHARED}}
        return Grid(**{"rank": [1, 4], "lr": [1e-2, 3e-3], "seed": 0, **axes}).recipes(tiny_encoder, opinions, **shared)

    return make


def facts(runs) -> dict[str, tuple]:
    """What must be equal of two sweeps, by recipe."""
    return {
        run.recipe.hash: (run.status, run.metrics.get("accuracy"), np.round(run.history["loss"], 5).tolist())
        for run in runs
    }


def test_a_sweep_makes_all_runs_and_a_second_one_none(grid, tmp_path):
    recipes = grid(seed=[0, 1])
    swept = sweep(recipes, tmp_path, size=3)
    assert [run.recipe for run in swept.runs] == recipes
    assert (swept.packs, swept.skipped, swept.failed) == ((2, 3, 3), 0, 0)
    assert all(run.status == "done" and Path(run.adapter, "adapter_model.safetensors").is_file() for run in swept.runs)
    again = sweep([*recipes, *grid(seed=2)], tmp_path)
    assert (again.skipped, sum(again.packs)) == (8, 4)
    assert facts(again.runs[:8]) == facts(swept.runs)
    assert not list((tmp_path / "unfinished").glob("*"))


def test_a_run_that_fails_is_recorded_and_the_rest_go_on(grid, tmp_path):
    recipes = [*grid(), *(replace(r, lr=1e30) for r in grid(rank=2, lr=1e-2))]
    swept = sweep(recipes, tmp_path)
    assert (swept.failed, [r.status for r in swept.runs].count("done")) == (1, 4)
    assert "lower the rate" in swept.runs[-1].error
    assert sweep(recipes, tmp_path).skipped == 5  # a failure is kept ...
    assert sum(sweep(recipes, tmp_path, again=True).packs) == 1  # ... unless it is asked for again


def test_a_run_that_cannot_be_laid_out_is_recorded_too(grid, tmp_path, monkeypatch):
    """As where memory runs short for one of them."""

    def refuse(recipe, choice) -> None:
        if recipe.method.rank == 4:
            raise BadValue("this run may need 9 GiB and 1 GiB are free")

    monkeypatch.setattr("lora_lab.training.pack.check_memory", refuse)
    bad, good = sweep(grid(lr=1e-2, rank=[4, 1]), tmp_path).runs
    assert (bad.status, good.status) == ("failed", "done")
    assert "this run may need" in bad.error


def test_stop_keeps_what_has_finished_and_the_rest_goes_on_where_it_was(grid, tmp_path):
    recipes, stop, steps = grid(seed=[0, 1], steps=12, validations=4), threading.Event(), []

    def watch(p) -> None:
        steps.append(p.step)
        if len(steps) > 4 * 12 + 4 * 5:
            stop.set()

    assert len(sweep(recipes, tmp_path, size=4, stop=stop, note=on_step(watch))) == 4
    first = []
    swept = sweep(recipes, tmp_path, size=4, note=on_step(lambda p: first.append(p.step)))
    assert min(first) > 1  # not from the beginning
    assert facts(swept.runs) == facts(sweep(recipes, tmp_path / "whole", size=4).runs)


def test_a_test_score_that_is_no_number_is_a_failed_run(grid, tmp_path, monkeypatch):
    recipes = grid(lr=1e-2, validations=0)
    scores = [Score({"accuracy": 0.5, "loss": n}, np.zeros(4, int)) for n in (float("nan"), 0.7)]
    monkeypatch.setattr("lora_lab.training.pack.Pack.score", lambda pack, split: scores)
    bad, good = sweep(recipes, tmp_path).runs
    assert (bad.status, bad.adapter, good.status) == ("failed", None, "done")
    assert "the test loss became nan: lower the rate" in str(bad.error)


def test_what_cannot_be_is_refused_once_and_before_anything_is_trained(grid, tmp_path):
    nowhere = [replace(recipe, model="minilmm") for recipe in grid()]
    for recipes, says in ((grid(rank=[1, 33]), "rank 33 is above"), (nowhere, "no model 'minilmm'")):
        with pytest.raises((BadValue, NotFound), match=says):
            sweep(recipes, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_fills_up_is_one_sentence_and_what_was_there_stays(grid, tmp_path, monkeypatch):
    recipes = grid(seed=[0, 1])
    sweep(recipes[:2], tmp_path)
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(BadValue, match="No space left on device"):
        sweep(recipes, tmp_path)
    monkeypatch.undo()
    assert sweep(recipes, tmp_path).skipped == 2


def test_a_clock_that_jumps_shifts_no_duration_and_loses_no_run(grid, tmp_path, monkeypatch):
    clock, rng = time.time, random.Random(0)
    monkeypatch.setattr("time.time", lambda: clock() + rng.uniform(-1e8, 1e8))
    swept = sweep(grid(), tmp_path)
    assert 0 < sum(run.seconds for run in swept.runs) <= swept.seconds < 600
    for record in tmp_path.glob("*.json"):
        os.utime(record, (rng.uniform(0, 4e9),) * 2)
    assert sweep(grid(), tmp_path).skipped == len(Store(tmp_path).runs()) == 4


# ---- one's own file, edited


@pytest.fixture
def own(grid, opinions, tmp_path):
    """Recipes on a file that a test may edit, and the file."""
    file = tmp_path / "own.csv"
    file.write_text(Path(opinions).read_text())
    return [replace(recipe, task=str(file)) for recipe in grid(rank=[1, 2], lr=1e-2)], file


def edit(file: Path) -> None:
    """As somebody who puts labels right: the texts and their number stay."""
    file.write_text(file.read_text().replace("awful,bad", "awful,good").replace("lovely,good", "lovely,bad"))


def test_an_edited_file_is_not_answered_with_runs_of_the_old_one(own, tmp_path):
    recipes, file = own
    runs, was = sweep(recipes, tmp_path / "runs"), file.read_text()
    edit(file)
    with pytest.raises(Changed, match=r"own\.csv has changed since runs were trained on it.*another --out"):
        sweep(recipes, tmp_path / "runs")
    with pytest.raises(Changed, match="has changed"):
        _ = runs.scores  # old predictions on new labels
    assert sweep(recipes, tmp_path / "others").skipped == 0
    file.write_text(was)
    assert sweep(recipes, tmp_path / "runs").skipped == 2


def test_a_broken_off_pack_does_not_go_on_with_an_edited_file(own, tmp_path):
    recipes, file = own
    stop = threading.Event()
    sweep(recipes, tmp_path / "runs", stop=stop, note=on_step(lambda p: stop.set()))
    edit(file)
    with pytest.raises(Changed, match="has changed"):
        sweep(recipes, tmp_path / "runs")


def test_runs_that_do_not_say_what_the_file_held_go_on_counting(own, tmp_path):
    recipes, file = own
    sweep(recipes, tmp_path)
    for record in (tmp_path / f"{recipe.hash}.json" for recipe in recipes):
        told = json.loads(record.read_text())
        assert told["environment"].pop("data")
        record.write_text(json.dumps(told))
    edit(file)
    again = sweep(recipes, tmp_path)
    assert (again.skipped, again.scores.shape) == (2, (2, 16))
    file.write_text(file.read_text() + "".join(f"\nanother {n},good" for n in range(20)))
    with pytest.raises(Changed, match="has changed"):
        _ = again.scores  # as many answers as there were rows


# ---- killed


def killed_sweeps(folder: Path, model: str, task: str, kills: int, seed: int) -> int:
    """Start the same sweep over and over and kill it at a random moment; returns the number of real kills.

    The first one is suspended before, as a laptop whose lid is closed: its store stays its own, and it goes on.
    """
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from lora_lab import Grid, sweep\n"
        "sweep(Grid(rank=[1, 4, 8], lr=[1e-2, 3e-3], seed=[0, 1]), sys.argv[1], model=sys.argv[2], task=sys.argv[3],\n"
        "      size=4, steps=120, batch=8, validations=4, dtype='fp32', attention='eager', device='cpu',\n"
        "      note=lambda event, facts: event == 'step' and print(facts['progress'].step, flush=True))"
    )
    rng, done = random.Random(seed), 0
    while done < kills:
        command = [sys.executable, "-c", code, str(folder), model, task]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        assert process.stdout is not None
        process.stdout.readline()  # it trains
        if not done:
            os.kill(process.pid, signal.SIGSTOP)
            with pytest.raises(BadValue, match="another sweep is using"):
                sweep(Grid(rank=1), folder, model=model, task=task)
            os.kill(process.pid, signal.SIGCONT)
            process.stdout.readline()  # it goes on
        time.sleep(rng.random() * 0.8)
        if process.poll() is not None:
            break  # it was done before
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
        done += 1
    return done


def survives(folder: Path, model: str, task: str, kills: int, seed: int) -> None:
    shared = {"steps": 120, "batch": 8, "validations": 4, **PLAIN}
    recipes = Grid(rank=[1, 4, 8], lr=[1e-2, 3e-3], seed=[0, 1]).recipes(model, task, **shared)
    assert killed_sweeps(folder / "killed", model, task, kills, seed) >= min(kills, 2)
    swept, whole = (sweep(recipes, folder / name, size=4) for name in ("killed", "whole"))
    assert [run.recipe for run in swept.runs] == recipes
    for run, other in zip(swept.runs, whole.runs, strict=True):
        assert run.status == other.status == "done"
        assert run.history["step"] == list(range(1, 121))  # no step twice
        assert np.allclose(run.history["loss"], other.history["loss"], rtol=1e-4)
        assert run.metrics["accuracy"] == other.metrics["accuracy"]
    assert len(Store(folder / "killed").runs()) == len(recipes)
    assert not list((folder / "killed" / "unfinished").glob("*"))


def test_a_killed_sweep_ends_as_one_that_was_left_alone(tiny_encoder, opinions, tmp_path):
    survives(tmp_path, tiny_encoder, opinions, kills=1, seed=0)


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_had_ended_at_the_stop_takes_no_step_more_and_the_others_go_on(grid, tmp_path, monkeypatch, killed):
    """The first ends by patience in the step of the stop, or all was killed before it was kept."""
    early, other = grid(lr=1e-2, rank=[1, 4], steps=12, validations=6)
    monkeypatch.setattr("lora_lab.training.loop.better", lambda values, than: False)
    monkeypatch.setattr("lora_lab.training.pack.SHARE", 1e9)  # every validation writes a checkpoint
    recipes, stop, steps = [replace(early, patience=1), other], threading.Event(), list[int]()
    with monkeypatch.context() as first:
        if killed:
            first.setattr("lora_lab.training.pack.Pack._finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
            sweep(
                recipes, tmp_path, stop=stop, note=on_step(lambda p: stop.set() if p.step == 4 and not killed else None)
            )
    stored = [(run.status, run.history["step"]) for run in Store(tmp_path).runs()]
    assert stored == ([] if killed else [("early", [1, 2, 3, 4])])
    swept = sweep(recipes, tmp_path, note=on_step(lambda p: steps.append(p.step)))
    assert [(run.status, run.history["step"][-1]) for run in swept.runs] == [("early", 4), ("done", 12)]
    assert steps[0] == 5


def test_only_what_a_sweep_wrote_is_taken_away(grid, tmp_path):
    """A store may be a project's folder or a home: its dot files stay, what a killed sweep left half written goes."""
    recipes = grid(lr=1e-2, rank=1)
    half = tmp_path / f".{recipes[0].hash}.json.x1y2z3w4"
    mine = [tmp_path / ".env", tmp_path / ".gitignore", half]
    for file in mine:
        file.write_text("mine")
    (tmp_path / ".git").mkdir()
    sweep(recipes, tmp_path)
    assert [file.is_file() for file in mine] == [True, True, False]
    assert (tmp_path / ".git").is_dir()


def limited(monkeypatch, rows: int) -> None:
    """Let a training step with more rows run out of memory, as a GPU does."""

    def compute(model, batch):
        if torch.is_grad_enabled() and len(batch.labels) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return logits_of(model, batch)

    monkeypatch.setattr("lora_lab.training.loop.logits_of", compute)


def test_if_a_pack_runs_out_of_memory_its_halves_go_on_and_nothing_is_lost(grid, tmp_path, monkeypatch):
    recipes = grid(seed=[0, 1])
    expected = facts(sweep(recipes, tmp_path / "enough").runs)
    limited(monkeypatch, rows=2 * 8)  # two runs at a time
    alive, others = weakref.WeakSet(), []

    class Watched(Pack):
        def __init__(self, *args, **options) -> None:
            gc.collect()
            others.append(len(alive))
            super().__init__(*args, **options)
            alive.add(self)

    assert facts(Sweep(tmp_path / "little", pack=Watched).run(recipes).runs) == expected
    assert len(others) > 1
    assert set(others) == {0}  # the memory of the pack that ran out is free
    assert not list((tmp_path / "little" / "unfinished").glob("*"))


def test_a_run_that_does_not_fit_even_alone_says_which_batch_would_and_the_others_train(grid, tmp_path, monkeypatch):
    limited(monkeypatch, rows=8)
    large, small = grid(batch=16, lr=1e-2, rank=1), grid(lr=1e-2, rank=1)
    swept = sweep([*large, *small], tmp_path)
    assert [run.status for run in swept.runs] == ["failed", "done"]
    assert re.fullmatch(r"memory ran out while training with batch 16: try batch 8, or .*", swept.runs[0].error)
    monkeypatch.undo()
    assert sweep(large, tmp_path, again=True).failed == 0


@pytest.mark.slow
def test_a_sweep_killed_twenty_times(tiny_encoder, opinions, tmp_path):
    for seed in range(4):
        survives(tmp_path / str(seed), tiny_encoder, opinions, kills=5, seed=seed + 1)

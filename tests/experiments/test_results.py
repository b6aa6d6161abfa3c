"""Tests of runs as a frame, and of runs trained in different dtypes, which are never averaged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_course.claims.evidence import Cells
from lora_course.panels.class_panel import ClassPanel
from lora_lab import FullFineTuning, LoRA, Recipe, Store, sweep, verdict
from lora_lab.errors import BadValue, LabWarning
from lora_lab.experiments.results import Runs, collect, from_store, load
from lora_lab.training.device import Choice, environment
from lora_lab.training.runs import Run
from tests.conftest import made_run

BF16, FP32 = Choice("cpu", "bf16", "eager"), Choice("cpu", "fp32", "eager")


def finished_run(seed: int, choice: Choice, *, lr: float = 2e-3, method=None, accuracy: float = 0.8) -> Run:
    """A finished run on rt, as stored by a machine that chooses this dtype."""
    recipe = Recipe("minilm", "rt", method or LoRA(), seed=seed, lr=lr)
    return made_run(recipe, np.zeros(2000, dtype=int), environment(choice), accuracy=accuracy)


@pytest.fixture
def two_stores(tmp_path) -> tuple[Path, Path]:
    """Three seeds of a recipe from a machine that chooses bf16, and two more from one that chooses fp32."""
    for seed in range(5):
        name, choice, accuracy = ("ada", BF16, 0.8) if seed < 3 else ("ben", FP32, 0.6)
        Store(tmp_path / name).add(finished_run(seed, choice, accuracy=accuracy))
    return tmp_path / "ada", tmp_path / "ben"


def test_frame_has_settings_metrics_and_the_last_validation(tmp_path):
    Store(tmp_path).add(finished_run(3, FP32, lr=1e-3))
    (row,) = load(tmp_path).to_dict("records")
    expected = {"rank": 8, "alpha": 16, "lr": 1e-3, "seed": 3, "targets": "q,v", "accuracy": 0.8, "status": "done"}
    assert {name: row[name] for name in expected} == expected
    assert row["validation_accuracy"] == pytest.approx(0.8)


def test_runs_without_scores_are_refused():
    unscored = Runs((replace(finished_run(0, FP32), predictions=None),))
    with pytest.raises(BadValue, match="has no predictions; score it again"):
        verdict(unscored, unscored)
    with pytest.raises(BadValue, match="none of these 0 runs finished"):
        verdict(Runs(()), Runs(()))


def test_collected_table_has_a_row_per_dtype(two_stores, tmp_path, lora_lab):
    done = lora_lab("collect", *map(str, two_stores), "--out", str(tmp_path / "all"))
    lines = [line.split()[-4:] for line in done.stdout.splitlines() if line.startswith("lora ")]
    assert lines == [["80.0", "80.0", "80.0", "80.0"], ["2", "60.0", "60.0", "60.0"]]
    assert "run_dtype" in done.stdout
    assert "3 in bf16 and 2 in fp32" in done.stderr


@pytest.mark.filterwarnings("error::lora_lab.errors.LabWarning")
def test_runs_of_one_dtype_are_pooled_without_a_warning(two_stores):
    for store in two_stores:
        assert len(from_store(store).scores) == len(from_store(store).accuracy) > 1
    full = Runs(tuple(finished_run(seed, FP32, method=FullFineTuning()) for seed in range(3)))
    verdict(from_store(two_stores[0]), full)  # full fine-tuning asks for fp32 on every machine


def test_pooling_different_dtypes_warns(two_stores):
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
    assert len(cells.frame) == 3
    assert cells.made.endswith("in bf16; 2 in another dtype are left out")

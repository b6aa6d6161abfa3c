"""Runs as a tidy frame, and runs of which one machine took bf16 and another fp32: no mean is of both."""

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
ROWS = 2000  # test rows of rt


def run(seed: int, choice: Choice, *, lr: float = 2e-3, method=None, right: float = 0.8) -> Run:
    """A finished run as a machine that takes this dtype would keep it."""
    recipe = Recipe("minilm", "rt", method or LoRA(), seed=seed, lr=lr)
    return made_run(recipe, np.zeros(ROWS, dtype=int), environment(choice), accuracy=right)


def stored(folder: Path, *runs: Run) -> Path:
    for one in runs:
        Store(folder).add(one)
    return folder


def test_a_row_has_settings_metrics_and_the_last_validation(tmp_path):
    (row,) = load(stored(tmp_path, run(3, FP32, lr=1e-3))).to_dict("records")
    expected = {"rank": 8, "alpha": 16, "lr": 1e-3, "seed": 3, "targets": "q,v", "accuracy": 0.8, "status": "done"}
    assert {name: row[name] for name in expected} == expected
    assert row["validation_accuracy"] == pytest.approx(0.8)


def test_runs_that_cannot_be_judged_say_why_also_to_a_verdict():
    unscored = Runs((replace(run(0, FP32), predictions=None),))
    with pytest.raises(BadValue, match="has no predictions; score it again"):
        verdict(unscored, unscored)
    with pytest.raises(BadValue, match="none of these 0 runs finished"):
        verdict(Runs(()), Runs(()))


@pytest.fixture
def two_stores(tmp_path) -> tuple[Path, Path]:
    """Seeds 0 to 2 of a recipe from a machine that takes bf16, 3 and 4 of the same recipe from one that takes fp32."""
    ada = stored(tmp_path / "ada", *(run(seed, BF16, right=0.8) for seed in range(3)))
    return ada, stored(tmp_path / "ben", *(run(seed, FP32, right=0.6) for seed in (3, 4)))


def test_no_table_of_the_command_line_averages_over_them(two_stores, tmp_path, lora_lab):
    found = lora_lab("collect", *map(str, two_stores), "--out", str(tmp_path / "all"))
    lines = [line for line in found.stdout.splitlines() if line.startswith("lora ")]
    assert [line.split()[-4:] for line in lines] == [["80.0", "80.0", "80.0", "80.0"], ["2", "60.0", "60.0", "60.0"]]
    assert "run_dtype" in found.stdout
    assert "3 in bf16 and 2 in fp32" in found.stderr


@pytest.mark.filterwarnings("error::lora_lab.errors.LabWarning")
def test_runs_of_one_dtype_are_pooled_as_ever(two_stores):
    for store in two_stores:
        assert len(from_store(store).scores) == len(from_store(store).accuracy) > 1
    full = Runs(tuple(run(seed, FP32, method=FullFineTuning()) for seed in range(3)))
    verdict(from_store(two_stores[0]), full)  # which asks for fp32, whatever the machine


def test_scores_accuracies_and_verdicts_over_unlike_dtypes_warn(two_stores, tmp_path):
    runs = Runs(tuple(one for store in two_stores for one in Store(store).runs()))
    for pooled in (lambda: runs.accuracy, lambda: runs.scores, lambda: verdict(runs, runs)):
        with pytest.warns(LabWarning, match="different dtypes"):
            pooled()
    a, b = (Runs(tuple(run(seed, one, lr=lr) for seed in range(2))) for lr, one in ((1e-3, BF16), (2e-3, FP32)))
    with pytest.warns(LabWarning, match="different dtypes"):
        verdict(a, b)
    assert len(runs.at(run_dtype="bf16")) == 3


@pytest.mark.filterwarnings("ignore::lora_lab.errors.LabWarning")
def test_a_sweep_warns_and_the_classs_map_and_the_evidence_for_a_claim_are_of_one_dtype(two_stores, tmp_path):
    panel = ClassPanel(tmp_path, tmp_path.with_name("all"))
    assert {one.dtype for one in panel.playground.results} == {"bf16"}
    assert panel.classroom["left_out"] == "Left out: 2 runs in another dtype."
    collect(two_stores, tmp_path / "all")
    with pytest.warns(LabWarning, match="3 in bf16 and 2 in fp32"):
        sweep([one.recipe for one in Store(tmp_path / "all").runs()], tmp_path / "all")
    cells = Cells(tmp_path / "all", "")
    assert len(cells.frame) == 3
    assert cells.made.endswith("in bf16; 2 in another dtype are left out")

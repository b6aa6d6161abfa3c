"""What claims are judged by: published counts and spreads, and runs made to come out so."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course.claims import evidence
from lora_course.claims.cards import judge
from lora_course.claims.evidence import Interval
from lora_lab import FullFineTuning, LoRA, Recipe, Store
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.base import Method
from lora_lab.training.runs import Run
from tests.conftest import made_run

ROWS = 1500


@pytest.fixture
def store(tmp_path: Path):
    """`store({LoRA(8): 0.8})`: a folder with five finished runs of each method that answer so many rows right."""
    rows = [(f"text {n}", "good" if n % 2 else "bad", "test") for n in range(ROWS)]
    rows += [(f"train {n}", "good" if n % 2 else "bad", split) for n, split in enumerate(("train", "validation") * 4)]
    task = str(tmp_path / "task.csv")
    pd.DataFrame(rows, columns=["text", "label", "split"]).to_csv(task, index=False)

    def made(accuracies: dict[Method, float]) -> Path:
        for method, accuracy in accuracies.items():
            for seed in range(5):
                Store(tmp_path / "runs").add(run(task, method, accuracy, seed))
        return tmp_path / "runs"

    return made


def run(task: str, method: Method, accuracy: float, seed: int) -> Run:
    hard = np.random.default_rng(7).random(ROWS)  # the same rows are hard for all
    right = hard + 0.02 * np.random.default_rng(seed).standard_normal(ROWS) < accuracy
    classes = np.arange(ROWS) % 2  # bad 0, good 1
    recipe = Recipe("a model", task, method, lr=1e-3, steps=1, batch=4, seed=seed)
    return made_run(recipe, np.where(right, classes, 1 - classes), accuracy=float(right.mean()))


@pytest.mark.parametrize(
    ("claim", "changes", "runs", "word"),
    [
        ("low_rank_is_enough", {"rank": 8}, {LoRA(8): 0.80, LoRA(32): 0.80}, "true"),
        ("no_quality_drop", {}, {LoRA(): 0.60, FullFineTuning(): 0.80}, "false"),
        ("q_and_v", {"reported": False}, {LoRA(8): 0.80, LoRA(8, targets=("q",)): 0.90}, "false"),
        ("alpha_2r_is_best", {}, {LoRA(64, alpha=128): 0.60, LoRA(64, alpha=16): 0.80}, "false"),
    ],
)
def test_runs_of_ones_own_decide(store, claim, changes, runs, word):
    folder = store(runs)
    found = judge(claim, store=folder, **changes)
    assert found.word == word
    assert str(folder) in found.evidence[0]


def test_missing_or_mixed_runs_are_named(store):
    folder = store({LoRA(8): 0.80})
    with pytest.raises(NotFound, match=r"no run with rank 32 .* available: 8"):
        judge("low_rank_is_enough", rank=8, store=folder)
    store({LoRA(8, targets=("q",)): 0.70, LoRA(32): 0.80})
    with pytest.raises(BadValue, match="differ in targets, not just in seed"):
        judge("low_rank_is_enough", rank=8, store=folder)


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_no_worse_is_the_whole_interval_on_one_side(difference, half, margin):
    interval = Interval(difference, difference - half, difference + half)
    assert (interval.no_worse(margin) is True) == (difference - half > -margin)
    assert (interval.no_worse(margin) is False) == (difference + half < -margin)


def test_published_spreads_and_counts_make_the_interval():
    """Table 5: q,v against all four on MNLI, 91.3 and 91.7, each +-0.1; PEFT's suite: one run of each tells little."""
    found = evidence.places_on_gpt3("q+v")["Wq,Wk,Wv,Wo on MNLI"]
    assert found.difference == pytest.approx(-0.004)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2**0.5 * 0.001)
    assert evidence.places_on_gpt3("all-linear") == evidence.ranks_on_gpt3(32) == {}
    suite = evidence.metamath("lora", "full")
    assert suite.low < -0.03 < 0.03 < suite.high  # about 3.8 points either way
    with pytest.raises(BadValue, match="methods of table 4 are lora, full, prompt, not 'ia3'"):
        evidence.methods_on_gpt3("ia3", "lora")

from itertools import product

import numpy as np
import pandas as pd
import pytest

from lora_course.claims import evidence
from lora_course.claims.cards import judge
from lora_lab import BadValue, FullFineTuning, LoRA, NotFound, Recipe, Store
from tests.conftest import made_run

ROWS = 1500


@pytest.fixture
def make_runs(tmp_path):
    """`make_runs({LoRA(8): 0.8})`: a store with five finished runs of each method at this accuracy."""
    splits = ["test"] * ROWS + ["train"] * 4 + ["validation"] * 4
    rows = [(f"text {n}", "good" if n % 2 else "bad", split) for n, split in enumerate(splits)]
    pd.DataFrame(rows, columns=["text", "label", "split"]).to_csv(task := tmp_path / "task.csv", index=False)
    difficulty = np.random.default_rng(7).random(ROWS)  # the same rows are hard for every run
    classes = np.arange(ROWS) % 2  # bad 0, good 1

    def make(accuracies):
        for (method, accuracy), seed in product(accuracies.items(), range(5)):
            right = difficulty + 0.02 * np.random.default_rng(seed).standard_normal(ROWS) < accuracy
            recipe = Recipe("a model", str(task), method, lr=1e-3, steps=1, batch=4, seed=seed)
            run = made_run(recipe, np.where(right, classes, 1 - classes), accuracy=float(right.mean()))
            Store(tmp_path / "runs").add(run)
        return tmp_path / "runs"

    return make


@pytest.mark.parametrize(
    ("claim", "changes", "accuracies", "word"),
    [
        ("low_rank_is_enough", {"rank": 8}, {LoRA(8): 0.80, LoRA(32): 0.80}, "true"),
        ("no_quality_drop", {}, {LoRA(): 0.60, FullFineTuning(): 0.80}, "false"),
        ("q_and_v", {"reported": False}, {LoRA(8): 0.80, LoRA(8, targets=("q",)): 0.90}, "false"),
        ("alpha_2r_is_best", {}, {LoRA(64, alpha=128): 0.60, LoRA(64, alpha=16): 0.80}, "false"),
    ],
)
def test_own_runs_decide_a_claim(make_runs, claim, changes, accuracies, word):
    store = make_runs(accuracies)
    verdict = judge(claim, store=store, **changes)
    assert verdict.word == word
    assert str(store) in verdict.evidence[0]


def test_missing_and_mixed_runs_are_refused(make_runs):
    store = make_runs({LoRA(8): 0.80})
    with pytest.raises(NotFound, match=r"no run with rank 32 .* available: 8"):
        judge("low_rank_is_enough", rank=8, store=store)
    make_runs({LoRA(8, targets=("q",)): 0.70, LoRA(32): 0.80})
    with pytest.raises(BadValue, match="differ in targets, not only in seed"):
        judge("low_rank_is_enough", rank=8, store=store)


def test_published_spreads_and_counts_give_intervals():
    places = evidence.places_on_gpt3("q+v")["Wq,Wk,Wv,Wo on MNLI"]  # 91.3 against 91.7, each +-0.1
    assert places.difference == pytest.approx(-0.004)
    assert places.high - places.low == pytest.approx(2 * 1.96 * 2**0.5 * 0.001)
    assert evidence.places_on_gpt3("all-linear") == evidence.ranks_on_gpt3(32) == {}
    suite = evidence.metamath("lora", "full")  # one run of each: 3.8 points either way
    assert suite.low < -0.03 < 0.03 < suite.high
    with pytest.raises(BadValue, match="methods of table 4 must be among lora, full, prompt, not 'ia3'"):
        evidence.methods_on_gpt3("ia3", "lora")

"""What claims are judged by: intervals from words, counts and printed spreads, and runs made to come out so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course.claims.cards import judge
from lora_course.claims.claim_tests import evidence
from lora_course.claims.claim_tests.evidence import Interval, compared, comparison
from lora_lab import FullFineTuning, LoRA, Recipe, Store
from lora_lab.errors import BadValue, NotFound
from lora_lab.methods.base import Method
from lora_lab.training.runs import Run

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
    history = {"step": [1], "loss": [1.0], "lr": [1e-3], "validation": [{"step": 1, "accuracy": accuracy}]}
    recipe = Recipe("a model", task, method, lr=1e-3, steps=1, batch=4, seed=seed)
    answers = np.where(right, classes, 1 - classes)
    return Run(recipe, {"accuracy": float(right.mean())}, history, 1, 1, 10, 1.0, 1, {}, predictions=answers)


@pytest.mark.parametrize(
    ("claim", "changes", "runs", "word"),
    [
        ("r8_is_enough", {"needed": 4}, {LoRA(8): 0.80, LoRA(32): 0.80}, "true"),
        ("r8_is_enough", {"needed": 64}, {LoRA(8): 0.60, LoRA(32): 0.80}, "false"),
        ("no_quality_drop", {}, {LoRA(): 0.80, FullFineTuning(): 0.80}, "true"),
        ("no_quality_drop", {}, {LoRA(): 0.60, FullFineTuning(): 0.80}, "false"),
        ("prompt_is_weaker", {"method": "lora", "than": "full"}, {LoRA(): 0.60, FullFineTuning(): 0.80}, "true"),
        ("q_and_v", {"reported": False}, {LoRA(8): 0.80, LoRA(8, targets=("q",)): 0.70}, "true"),
        ("q_and_v", {"reported": False}, {LoRA(8): 0.80, LoRA(8, targets=("q",)): 0.90}, "false"),
        ("alpha_2r_is_best", {}, {LoRA(64, alpha=128): 0.80, LoRA(64, alpha=16): 0.80}, "true"),
        ("alpha_2r_is_best", {}, {LoRA(64, alpha=128): 0.60, LoRA(64, alpha=16): 0.80}, "false"),
    ],
)
def test_runs_of_ones_own_decide(store, claim, changes, runs, word):
    folder = store(runs)
    found = judge(claim, store=folder, **changes)
    assert found.word == word
    assert str(folder) in found.evidence[0]


def test_runs_that_are_not_there_or_are_no_seeds_of_one_setting_are_named(store, tmp_path):
    with pytest.raises(NotFound, match="no finished runs"):
        judge("r8_is_enough", store=tmp_path / "none")
    folder = store({LoRA(8): 0.80})
    with pytest.raises(NotFound, match=r"no run with rank 32 .* there are 8"):
        judge("r8_is_enough", store=folder)
    store({LoRA(8, targets=("q",)): 0.70, LoRA(32): 0.80})
    with pytest.raises(BadValue, match="differ in targets, not in their seed alone"):
        judge("r8_is_enough", store=folder, needed=4)


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_no_worse_is_the_whole_interval_on_one_side(difference, half, margin):
    interval = Interval(difference, difference - half, difference + half)
    assert (interval.no_worse(margin) is True) == (difference - half > -margin)
    assert (interval.no_worse(margin) is False) == (difference + half < -margin)


def with_verdicts(**intervals: list[dict[str, float]]) -> dict[str, Any]:
    """A comparison of methods that says of each what its interval against full fine-tuning is."""
    words = "equivalent within 1.5 points (90 % interval -0.01 to 3e-05; 5 seeds x 2,000 rows)"
    said = {"kind": "equivalent", "words": words, "difference": -0.005, "points": True}
    rows = [
        {"method": name, "accuracy": {"mean": 0.8, "n": 5}, "against": {"full": {**said, "intervals": kept}}}
        for name, kept in intervals.items()
    ]
    rows.append({"method": "full", "accuracy": {"mean": 0.8, "n": 5}, "against": {}})
    return {"task": "rt", "metric": "accuracy", "methods": rows}


def test_the_numbers_of_a_verdict_are_read_and_not_its_words():
    """As digits of words "3e-05" was read as 3."""
    found = with_verdicts(lora=[{"level": 95, "low": -0.0001, "high": 3e-7}])
    interval = compared(found, "lora", "full")
    assert (interval.difference, interval.low, interval.high, interval.level) == (-0.005, -0.0001, 3e-7, 95)
    found["methods"][0]["against"]["full"] = {"kind": "worse", "words": "worse by 1.4 points (95 % interval -2 to -1)"}
    with pytest.raises(BadValue, match="keeps no interval of 'lora' against 'full'"):
        compared(found, "lora", "full")


def test_every_verdict_that_ships_with_the_lab_has_its_numbers():
    for name in ("minilm_rt", "minilm_rt_all_linear", "smollm2_kjv", "smollm2_restaurants"):
        for row in comparison(name)["methods"]:
            for said in row["against"].values():
                interval = said["intervals"][-1]  # at 95 %
                assert interval["level"] == 95
                side = {"better": interval["low"] > 0, "worse": interval["high"] < 0}
                assert side.get(said["kind"], interval["low"] <= 0 <= interval["high"])
                assert interval["low"] < said["difference"] < interval["high"]


def test_two_methods_are_compared_through_a_third_no_more_exactly_than_it_allows():
    at_90, at_95 = ({"level": level, "low": -0.02, "high": 0.01} for level in (90, 95))
    made = with_verdicts(lora=[at_90, at_95], prompt=[at_95], ia3=[at_90])
    assert compared(made, "lora", "ia3").level == compared(made, "ia3", "prompt").level == 90
    assert compared(made, "full", "prompt").level == 95
    with pytest.raises(BadValue, match="different units"):
        Interval(0, -1, 1).minus(Interval(0, -1, 1, points=False))
    found = comparison("minilm_rt")
    direct, through = compared(found, "lora", "full"), compared(found, "prompt", "lora")
    mean = {row["method"]: row["accuracy"]["mean"] for row in reversed(found["methods"])}  # the first of two LoRAs
    assert through.difference == pytest.approx(mean["prompt"] - mean["lora"], abs=1e-3)
    assert through.high - through.low > direct.high - direct.low
    back = compared(found, "full", "lora")
    assert (back.low, back.high) == pytest.approx((-direct.high, -direct.low))
    with pytest.raises(NotFound, match="nearest: lora"):
        compared(found, "loras", "full")


def test_published_spreads_and_counts_make_the_interval():
    """Table 5: q,v against all four on MNLI, 91.3 and 91.7, each +-0.1; PEFT's suite: one run of each tells little."""
    found = evidence.places_on_gpt3("q+v")["Wq,Wk,Wv,Wo on MNLI"]
    assert found.difference == pytest.approx(-0.004)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2**0.5 * 0.001)
    assert evidence.places_on_gpt3("all-linear") == evidence.ranks_on_gpt3(32) == {}
    suite = evidence.metamath("lora", "full")
    assert suite.low < -0.03 < 0.03 < suite.high  # about 3.8 points either way
    with pytest.raises(NotFound, match="table 4 has no 'ia3'"):
        evidence.methods_on_gpt3("ia3", "lora")

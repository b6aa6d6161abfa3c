"""Tests of studies: groups of recipes, their runs, and verdicts on pairs of groups."""

from dataclasses import replace

import numpy as np
import pytest

from lora_lab import LoRA, load_task
from lora_lab.experiments.statistics import verdicts
from lora_lab.experiments.study import Study
from tests.conftest import made_run


def test_groups_share_fields_and_start_without_runs():
    study = Study.of("minilm", "rt", {"a": LoRA(rank=1), "b": "lora:rank=2", "c": {"method": "full", "lr": 1e-4}}, 2)
    assert study.groups["a"][1] == replace(study.groups["a"][0], seed=1)
    assert study.groups["b"][0].method == LoRA(rank=2)
    assert [recipe.lr for recipe in study.groups["c"]] == [1e-4, 1e-4]
    assert study.missing == "6 of 6 runs are missing: stopped; repeat the call to resume"
    assert study.frame.empty
    assert study.verdicts({"rank": ("b", "a")}) == {}


def test_every_seed_draws_its_own_examples():
    few = Study.of("minilm", "rt", {"few": "lora"}, 3, examples=50, subset=4).groups["few"]
    assert [(recipe.seed, recipe.subset) for recipe in few] == [(0, 4), (1, 5), (2, 6)]


def test_verdicts_use_the_seeds_that_both_groups_finished():
    labels = np.array(load_task("rt").test.labels)
    study = Study.of("minilm", "rt", {"good": LoRA(rank=2), "bad": LoRA(rank=1)}, 3)
    runs = {}
    for name, count, errors in (("good", 3, 0.1), ("bad", 2, 0.3)):
        for recipe in study.groups[name][:count]:
            wrong = np.random.default_rng([recipe.seed, int(1000 * errors)]).random(len(labels)) < errors
            answers = np.where(wrong, 1 - labels, labels)
            runs[recipe] = made_run(recipe, answers, {"dtype": "fp32"}, accuracy=float((answers == labels).mean()))
    study = replace(study, found=runs)
    assert study.scores("good").shape == (3, len(labels))
    assert study.values("bad") == pytest.approx(study.scores("bad").mean(1).tolist())
    assert study.frame.groupby("group").size().to_dict() == {"good": 3, "bad": 2}
    assert study.missing.startswith("1 of 6 runs are missing")
    expected = verdicts({"good": study.scores("good")[:2], "bad": study.scores("bad")}, "bad")["good"]
    assert study.verdicts({"rank": ("good", "bad", "better")})["rank"] == expected
    assert expected.outcome == "better"

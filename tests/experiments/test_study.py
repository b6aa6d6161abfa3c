"""A study: groups of recipes, their runs from a store, and verdicts on pairs of groups."""

from dataclasses import replace

import numpy as np
import pytest

from lora_lab import LoRA, load_task
from lora_lab.experiments.statistics import verdicts
from lora_lab.experiments.study import Study
from tests.conftest import made_run


@pytest.fixture(scope="module")
def labels():
    return np.array(load_task("rt").test.labels)


def finished(recipe, labels, wrong):
    """A finished run that is wrong about every so many rows."""
    chance = np.random.default_rng([recipe.seed, int(1000 * wrong)])
    said = np.where(chance.random(len(labels)) < wrong, 1 - labels, labels)
    return made_run(recipe, said, {"dtype": "fp32"}, accuracy=float((said == labels).mean()))


def test_groups_come_from_methods_or_words_and_share_their_fields():
    study = Study.of("minilm", "rt", {"a": LoRA(rank=1), "b": "lora:rank=2", "c": {"method": "full", "lr": 1e-4}}, 2)
    assert study.groups["a"][1] == replace(study.groups["a"][0], seed=1)
    assert study.groups["b"][0].method == LoRA(rank=2)
    assert [recipe.lr for recipe in study.groups["c"]] == [1e-4, 1e-4]
    assert study.missing == "6 of 6 runs are missing: stopped; repeat the call to resume"
    assert study.frame.empty
    assert study.verdicts({"rank": ("b", "a")}) == {}


def test_with_few_examples_every_seed_draws_its_own():
    few = Study.of("minilm", "rt", {"few": "lora"}, 3, examples=50, subset=4).groups["few"]
    assert [(recipe.seed, recipe.subset) for recipe in few] == [(0, 4), (1, 5), (2, 6)]


def test_verdicts_are_of_the_seeds_that_both_groups_have(labels):
    study = Study.of("minilm", "rt", {"good": LoRA(rank=2), "bad": LoRA(rank=1)}, 3)
    runs = {recipe: finished(recipe, labels, 0.1) for recipe in study.groups["good"]}
    runs |= {recipe: finished(recipe, labels, 0.3) for recipe in study.groups["bad"][:2]}
    found = replace(study, found=runs)
    assert found.scores("good").shape == (3, len(labels))
    assert found.values("bad") == pytest.approx(found.scores("bad").mean(1).tolist())
    assert found.frame.groupby("group").size().to_dict() == {"good": 3, "bad": 2}
    assert found.missing.startswith("1 of 6 runs are missing")
    same = verdicts({"good": found.scores("good")[:2], "bad": found.scores("bad")}, "bad")["good"]
    assert found.verdicts({"rank": ("good", "bad", "better")})["rank"] == same
    assert same.outcome == "better"

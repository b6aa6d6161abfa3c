"""Accuracy against the number of examples: the same draws for all, verdicts by pairs, nothing run twice."""

from __future__ import annotations

import pytest

from lora_course.experiments.little import Little, little
from lora_lab import BadValue, LoRA
from tests.training.conftest import PLAIN


@pytest.fixture(scope="module")
def told(tiny_encoder, opinions, tmp_path_factory):
    """`told()`: two ranks on 8 texts and on all 56, three draws of each."""
    store = tmp_path_factory.mktemp("little")

    def make(**changes) -> Little:
        few = {"examples": (8, 0), "subsets": 3, "steps": 12, "batch": 8, "store": store, "fields": PLAIN, **changes}
        return little({LoRA(2): 1e-2, LoRA(4): 1e-2}, model=tiny_encoder, task=opinions, **few)

    return make


def test_the_frame_has_every_draw_of_every_method(told):
    found = told()
    assert found.frame.groupby(["method", "examples"]).size().to_dict() == {
        (name, size): 3 for name in ("lora r2", "lora r4") for size in (8, 56)
    }
    assert found.frame["all"].tolist() == (found.frame["examples"] == 56).tolist()
    recipes = {place: [run.recipe for run in runs] for place, runs in found.runs.items()}
    assert [(r.examples, r.subset, r.seed) for r in recipes["lora r2", 8]] == [(8, n, n) for n in range(3)]
    assert [(r.examples, r.subset, r.seed) for r in recipes["lora r2", 56]] == [(0, 0, n) for n in range(3)]
    assert {r.steps for some in recipes.values() for r in some} == {12}


def test_a_second_call_runs_nothing_and_more_subsets_only_themselves(told):
    told()
    plans = []
    note = lambda event, facts: plans.append(facts) if event == "plan" else None  # noqa: E731
    told(note=note)
    told(subsets=4, note=note)
    assert [(plan["skipped"], plan["runs"]) for plan in plans] == [(12, 0), (12, 4)]


def test_verdicts_are_of_pairs_on_the_same_rows_and_the_words_hold_them(told):
    found = told()
    assert found.against == "lora r2"
    assert set(found.verdicts) == {("lora r4", 8), ("lora r4", 56)}
    one = found.verdicts["lora r4", 56]
    means = found.frame.groupby(["method", "examples"])["accuracy"].mean()
    assert one.difference == pytest.approx(means["lora r4", 56] - means["lora r2", 56])
    assert (one.seeds, one.rows, one.pairs) == (3, 16, 2)
    words = str(found)
    assert "With 8 examples: lora r2 " in words
    assert "With all 56 examples: " in words
    assert all(str(v) in words for v in found.verdicts.values())
    assert words.startswith("lora r4 against lora r2: ")


def test_a_draw_that_one_method_has_not_finished_is_left_out_of_the_pair(told):
    found = told()
    runs = {place: list(some) for place, some in found.runs.items()}
    runs["lora r4", 8][1] = None
    runs["lora r4", 56] = [None] * 3
    short = Little(runs, found.against, found.total)
    assert short.verdicts["lora r4", 8].seeds == 2
    assert ("lora r4", 56) not in short.verdicts
    assert "lora r4 has no finished run" in str(short)
    assert "not there at all 56" in short.finding()[0]


def test_what_cannot_be_is_refused(told, tmp_path):
    with pytest.raises(BadValue, match="has 56 training texts, not 57"):
        told(examples=[57], store=tmp_path)
    with pytest.raises(BadValue, match="examples must be a whole number of at least 0, not -8"):
        told(examples=[-8], store=tmp_path)
    with pytest.raises(BadValue, match=r"margin 1\.5 is impossible"):
        told(margin=1.5, store=tmp_path)
    with pytest.raises(BadValue, match="at least one method"):
        little({})
    with pytest.raises(BadValue, match="at least one method"):
        little({LoRA(4): 1e-2, LoRA(4, alpha=8): 1e-2})
    with pytest.raises(BadValue, match="no labels"):
        little({LoRA(): 1e-3}, task="kjv")

import json
import math
import runpy
from dataclasses import replace
from inspect import signature
from itertools import product

import numpy as np
import pandas as pd
import pytest

from lora_course.claims import cards, evidence, experiments
from lora_course.claims.cards import judge, judge_all, load_cards
from lora_course.claims.cases import STORE, Case, Finding
from lora_lab import BadValue, FullFineTuning, LoRA, NotFound, Recipe, Store, verdict
from tests.conftest import ROOT, assert_raises, made_run


def test_verdict_is_explained_by_its_cases():
    grid = [{"model": model, "rank": rank} for model in ("small", "large") for rank in (1, 8)]
    assert Finding(tuple(Case(s, s["rank"] == 8, "") for s in grid), ()).on == ("rank",)
    assert Finding(tuple(Case(s, s == grid[-1], "") for s in grid), ()).on == ("model", "rank")
    because = Finding(tuple(Case({"place": place}, place > 0, "") for place in range(7)), ()).because
    assert all(words in because for words in ("holds in 6 of 7", "fails in 1 of 7"))
    assert Finding((), ()).because == "no case meets these premises."
    assert Finding((Case(grid[0], None, "", "more seeds"), Case(grid[1], True, "")), ()).would_tell == "more seeds"
    for other in (True, None):  # one failure refutes a claim about all cases
        assert Finding((Case({}, False, ""), Case({}, other, "")), (), always=True).word == "false"


@pytest.fixture(scope="module")
def verdicts():
    return judge_all()


def test_every_card_is_complete_and_judged(verdicts):
    loaded = load_cards()
    assert [card.number for card in loaded.values()] == [str(n) for n in range(1, len(loaded) + 1)]
    for name, card in loaded.items():
        verdict = verdicts[name]
        assert card.id == name
        assert "https://" in card.source or "Nobody is quoted" in card.source
        assert all(premise.means for premise in card.all_premises.values())
        assert {*card.all_premises} == {*signature(vars(experiments)[card.experiment]).parameters} - {STORE}
        assert verdict.evidence
        assert str(verdict).startswith(verdict.words)
        assert verdict.changed == ()
        assert (verdict.word == "depends") == bool(verdict.on)
        assert (verdict.word == "undecided") == bool(verdict.would_tell)
        spans = [value for case in verdict.cases for value in case.span]
        assert spans
        assert verdict.axis
        assert not verdict.log or min(spans) > 0


def test_docs_page_is_up_to_date(verdicts):
    page = runpy.run_path(str(ROOT / "docs" / "claims.py"))["listing"](verdicts)
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == page, "run python docs/claims.py"


def test_changed_premise_changes_the_verdict():
    for name, changes, word in (
        ("times_fewer", {"times": 1000}, "true"),
        ("checkpoint_size", {"counted": "memory of a step"}, "false"),
        ("less_memory", {"seq": 2048}, "false"),
        ("one_24gb_card", {"bits": 2}, "depends"),
        ("merging_is_free", {"merged": False}, "false"),
        ("low_rank_is_enough", {"margin": 2}, "true"),
        ("alpha_2r_is_best", {"margin": 50}, "true"),
        ("rate_band", {"at_least_billions": 2}, "true"),
        ("rate_above_full", {"within": 10, "reported": False}, "true"),
        ("rank_1_for_rewards", {"reported": False}, "false"),
        ("batch_hurts", {"by": 0.15, "reported": False}, "false"),
        ("q_and_v", {"reported": False}, "true"),
        ("q_and_v", {"place": "q", "reported": False}, "false"),
        ("no_quality_drop", {"tasks": "minilm_rt", "margin": 3}, "true"),
        ("prompt_matches_full", {"tasks": "metamath"}, "false"),
    ):
        verdict = judge(name, **changes)
        assert verdict.word == word, verdict
        assert set(verdict.changed) == set(changes)


def test_study_counts_as_one_case():
    """Table 5 compares six other choices on two tasks, and our sweep compares five. These are two cases, not 17."""
    cases = judge("q_and_v").cases
    assert len({case.settings["study"] for case in cases}) == len(cases) == 4
    assert [case.holds for case in cases] == [True, True, None, None]  # a report without numbers decides nothing
    assert len(judge("q_and_v", place="all-linear").cases) == 1  # table 5 lacks it, and no report contradicts it


def test_invalid_premise_is_refused():
    assert_raises("no premise 'gpu'; nearest: gpu_gb", judge, "one_24gb_card", gpu=48)
    assert_raises("must be a number, such as 24", judge, "one_24gb_card", gpu_gb="nan")
    assert_raises("must be a number, such as 24", judge, "one_24gb_card", gpu_gb=math.inf)
    assert_raises("such as fsdp:8, not 'fsdp:-1'", judge, "one_24gb_card", cards=-1)
    assert_raises("16, 8, 4, 3, 2", judge, "one_24gb_card", bits=5)
    assert_raises("needs at least one value", judge, "less_memory", models=[])
    assert_raises("a factor of at least 1, such as 2, not 0", judge, "rate_above_full", within=0)
    assert_raises("must be between 0 and 100 points, such as 1.5, not 0", judge, "no_quality_drop", margin=0)
    assert_raises("longer than minilm can read", judge, "less_memory", models="minilm", seq=2048)


def test_a_claim_is_judged_with_changed_premises(lora_lab):
    verdict = json.loads(lora_lab("claims", "4", "--set", "gpu_gb=32", "--json").stdout)
    assert (verdict["id"], verdict["word"], verdict["changed"]) == ("one_24gb_card", "false", ["gpu_gb"])
    assert (verdict["on"], [case["holds"] for case in verdict["cases"]]) == ([], [False, False])
    assert verdict["figures"]["cases"] == 2
    text = lora_lab("claims", "one_24gb_card", "--set", "bits=2").stdout
    for words in ("bits = 2", "depends on model", "not shown:"):
        assert words in text
    for name in ("of", "store"):  # parameters of `judge`, but not premises
        assert lora_lab("claims", "one_24gb_card", "--set", f"{name}=2").returncode == 2


def test_all_claims_are_listed(lora_lab, verdicts, monkeypatch):
    monkeypatch.setattr(cards, "judge_all", lambda: verdicts)
    assert len(lora_lab("claims").stdout.splitlines()) == len(verdicts)
    assert [claim["id"] for claim in json.loads(lora_lab("claims", "--json").stdout)["claims"]] == list(verdicts)


@pytest.fixture
def make_runs(tmp_path):
    """`make_runs({LoRA(8): 0.8})` makes a store with five finished runs of each method at this accuracy.

    As in a comparison on a machine that computes in bf16, full fine-tuning is in fp32, and no run was validated.
    """
    test_rows = 1500
    splits = ["test"] * test_rows + ["train"] * 4 + ["validation"] * 4
    rows = [(f"text {n}", "good" if n % 2 else "bad", split) for n, split in enumerate(splits)]
    pd.DataFrame(rows, columns=["text", "label", "split"]).to_csv(task := tmp_path / "task.csv", index=False)
    difficulty = np.random.default_rng(7).random(test_rows)  # the same rows are hard for every run
    classes = np.arange(test_rows) % 2  # bad 0, good 1

    def make(accuracies):
        for (method, accuracy), seed in product(accuracies.items(), range(5)):
            right = difficulty + 0.02 * np.random.default_rng(seed).standard_normal(test_rows) < accuracy
            recipe = Recipe("a model", str(task), method, lr=1e-3, steps=1, batch=4, seed=seed)
            made_on = {"dtype": "fp32" if method.trains_base else "bf16"}
            run = made_run(recipe, np.where(right, classes, 1 - classes), made_on, accuracy=float(right.mean()))
            Store(tmp_path / "runs").add(replace(run, history={**run.history, "validation": []}))
        return tmp_path / "runs"

    return make


@pytest.mark.parametrize(
    ("claim", "changes", "accuracies", "word"),
    [
        ("low_rank_is_enough", {"rank": 8}, {LoRA(8): 0.80, LoRA(32): 0.80}, "true"),
        ("no_quality_drop", {}, {LoRA(): 0.60, FullFineTuning(): 0.80}, "false"),
        ("q_and_v", {"reported": False}, {LoRA(8): 0.8, LoRA(8, targets=("q",)): 0.9, FullFineTuning(): 0.8}, "false"),
        ("q_and_v", {"reported": False, "place": "v+q"}, {LoRA(8): 0.8, LoRA(8, targets=("q",)): 0.7}, "true"),
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
    with pytest.raises(NotFound, match=r"no run has .*32.* existing values are .*'8'"):
        judge("low_rank_is_enough", rank=8, store=store)
    make_runs({LoRA(8, targets=("q",)): 0.70, LoRA(32): 0.80})
    assert_raises("select one setting", judge, "low_rank_is_enough", rank=8, store=store)
    assert_raises("not ''", judge, "low_rank_is_enough", store="")


def test_published_spreads_and_counts_give_intervals():
    places = evidence.places_on_gpt3("q+v")["Wq,Wk,Wv,Wo on MNLI"]  # 91.3 against 91.7, each +-0.1
    assert places.difference == pytest.approx(-0.004)
    assert places.high - places.low == pytest.approx(2 * 1.96 * 2**0.5 * 0.001)
    losses = evidence.judged(verdict(np.linspace(-3, -2, 50), np.linspace(-3, -2.01, 50)))
    assert str(losses).startswith("+0.5 hundredths of a nat (90%: ")
    assert evidence.places_on_gpt3("all-linear") == evidence.ranks_on_gpt3(32) == {}
    suite = evidence.metamath("lora", "full")  # one run of each method, so the interval is ±3.8 points
    assert suite.low < -0.03 < 0.03 < suite.high
    with pytest.raises(BadValue, match="methods of table 4 must be one of lora, full, prompt, not 'ia3'"):
        evidence.methods_on_gpt3("ia3", "lora")

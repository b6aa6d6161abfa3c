"""Tests of claims: how cards are read, how a verdict follows from cases, and how premises change it."""

import json
import runpy
from pathlib import Path

import pytest
import yaml

from lora_course.claims.cards import card_from, judge, judge_all, load_cards
from lora_course.claims.cases import Case, Finding
from lora_lab.errors import BadValue
from lora_lab.training.assets import shipped

CARD = yaml.safe_load(shipped("data/claims/one_24gb_card.yaml").read_text(encoding="utf-8"))


def finding(*outcomes: bool | None, always: bool = False) -> Finding:
    cases = tuple(Case({"place": i}, holds, f"found {i}", "more seeds") for i, holds in enumerate(outcomes))
    return Finding(cases, ("a source",), always=always)


def test_verdict_follows_from_the_cases():
    for outcomes, word, word_if_always in (
        ([True, True], "true", "true"),
        ([False, False], "false", "false"),
        ([True, False], "depends", "false"),
        ([True, None], "undecided", "undecided"),
        ([None, False], "undecided", "false"),
        ([None], "undecided", "undecided"),
    ):
        assert finding(*outcomes).word == word
        assert finding(*outcomes, always=True).word == word_if_always


def test_verdict_is_explained_by_its_cases():
    grid = [{"model": model, "rank": rank} for model in ("small", "large") for rank in (1, 8)]
    assert Finding(tuple(Case(s, s["rank"] == 8, "") for s in grid), ()).on == ("rank",)
    assert Finding(tuple(Case(s, s == grid[-1], "") for s in grid), ()).on == ("model", "rank")
    assert (finding(True, True).on, finding(True, True).would_tell) == ((), "")
    assert finding(None, True).would_tell == "more seeds"
    because = finding(*[True] * 6, False).because
    assert "holds in 6 of 7" in because
    assert "fails in 1 of 7" in because


@pytest.fixture(scope="module")
def verdicts():
    return judge_all()


def test_every_card_is_complete_and_judged(verdicts):
    cards = load_cards()
    assert [card.number for card in cards.values()] == [str(n) for n in range(1, len(cards) + 1)]
    for name, card in cards.items():
        verdict = verdicts[name]
        assert card.id == name
        assert "https://" in card.source or "Nobody is quoted" in card.source
        assert all(premise.means for premise in card.all_premises.values())
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
    docs = Path(__file__).parents[3] / "docs"
    page = runpy.run_path(str(docs / "claims.py"))["listing"](verdicts)
    assert (docs / "claims.md").read_text(encoding="utf-8") == page, "run python docs/claims.py"


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
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
    ],
)
def test_changed_premise_changes_the_verdict(name, changes, word):
    verdict = judge(name, **changes)
    assert verdict.word == word, verdict
    assert set(verdict.changed) == set(changes)


def test_study_counts_as_one_case():
    """Table 5 compares six other choices on two tasks, and our sweep five: two cases, not seventeen."""
    cases = judge("q_and_v").cases
    assert len({case.settings["study"] for case in cases}) == len(cases) == 4
    assert [case.holds for case in cases] == [True, True, None, None]  # a report without numbers decides nothing
    assert len(judge("q_and_v", place="all-linear").cases) == 1  # table 5 lacks it, and no report speaks against it


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("one_24gb_card", {"gpu": 48}, "no premise 'gpu'; nearest: gpu_gb"),
        ("one_24gb_card", {"gpu_gb": "much"}, "must be a number, such as 24"),
        ("one_24gb_card", {"bits": 5}, "16, 8, 4, 3, 2"),
        ("less_memory", {"models": "minilm", "seq": 2048}, "longer than minilm can read"),
    ],
)
def test_invalid_premise_is_refused(name, changes, message):
    with pytest.raises(BadValue, match=message):
        judge(name, **changes)


def test_own_card_is_judged():
    verdict = judge(card_from(yaml.safe_dump(CARD | {"id": "mine"})), gpu_gb=32)
    values = json.loads(json.dumps(verdict.to_json()))
    assert (values["id"], values["word"], values["on"]) == ("mine", "false", [])
    assert [case["holds"] for case in values["cases"]] == [False, False]
    assert values["figures"]["cases"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not a card"),
        ("id: !!python/object/apply:os.getcwd []", "is not a card: ConstructorError"),
        (yaml.safe_dump(CARD | {"author": "me"}), "'author'"),
        (yaml.safe_dump({key: value for key, value in CARD.items() if key != "limits"}), "'limits'"),
        (yaml.safe_dump(CARD | {"experiment": "fits_on_cards"}), "'fits_on_cards'"),
        (yaml.safe_dump(CARD | {"premises": {}}), "needs the premises models, targets, rank"),
    ],
)
def test_invalid_card_is_refused(text, message):
    with pytest.raises(BadValue, match=message):
        card_from(text)

import json
import math
import runpy
from inspect import signature
from pathlib import Path

import pytest

from lora_course.claims import experiments
from lora_course.claims.cards import judge, judge_all, load_cards
from lora_course.claims.cases import STORE, Case, Finding
from lora_lab.errors import BadValue


def test_verdict_is_explained_by_its_cases():
    grid = [{"model": model, "rank": rank} for model in ("small", "large") for rank in (1, 8)]
    assert Finding(tuple(Case(s, s["rank"] == 8, "") for s in grid), ()).on == ("rank",)
    assert Finding(tuple(Case(s, s == grid[-1], "") for s in grid), ()).on == ("model", "rank")
    because = Finding(tuple(Case({"place": place}, place > 0, "") for place in range(7)), ()).because
    assert all(words in because for words in ("holds in 6 of 7", "fails in 1 of 7"))
    assert Finding((), ()).because == "no case meets these premises."
    assert Finding((Case(grid[0], None, "", "more seeds"), Case(grid[1], True, "")), ()).would_tell == "more seeds"


def test_one_failure_refutes_a_claim_about_any_case():
    for other in (True, None):
        assert Finding((Case({}, False, ""), Case({}, other, "")), (), always=True).word == "false"


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
    docs = Path(__file__).parents[3] / "docs"
    page = runpy.run_path(str(docs / "claims.py"))["listing"](verdicts)
    assert (docs / "claims.md").read_text(encoding="utf-8") == page, "run python docs/claims.py"


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
    """Table 5 compares six other choices on two tasks, and our sweep five: two cases, not seventeen."""
    cases = judge("q_and_v").cases
    assert len({case.settings["study"] for case in cases}) == len(cases) == 4
    assert [case.holds for case in cases] == [True, True, None, None]  # a report without numbers decides nothing
    assert len(judge("q_and_v", place="all-linear").cases) == 1  # table 5 lacks it, and no report contradicts it


def test_invalid_premise_is_refused():
    for name, changes, message in (
        ("one_24gb_card", {"gpu": 48}, "no premise 'gpu'; nearest: gpu_gb"),
        ("one_24gb_card", {"gpu_gb": "much"}, "must be a number, such as 24"),
        ("one_24gb_card", {"gpu_gb": "nan"}, "must be a number, such as 24"),
        ("one_24gb_card", {"gpu_gb": math.inf}, "must be a number, such as 24"),
        ("one_24gb_card", {"cards": -1}, "such as fsdp:8, not 'fsdp:-1'"),
        ("one_24gb_card", {"bits": 5}, "16, 8, 4, 3, 2"),
        ("less_memory", {"models": "minilm", "seq": 2048}, "longer than minilm can read"),
    ):
        with pytest.raises(BadValue, match=message):
            judge(name, **changes)


def test_verdict_is_written_as_json():
    values = json.loads(json.dumps(judge("one_24gb_card", gpu_gb=32).to_json()))
    assert (values["id"], values["word"], values["on"]) == ("one_24gb_card", "false", [])
    assert [case["holds"] for case in values["cases"]] == [False, False]
    assert values["figures"]["cases"] == 2

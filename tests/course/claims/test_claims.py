"""Cards of claims: how they are read, how a verdict follows from cases, and what a changed premise does to it."""

import json
import runpy
from pathlib import Path

import pytest
import yaml

from lora_course.claims.cards import card_from, judge, judge_all, load_cards
from lora_course.claims.cases import Case, Finding
from lora_lab.errors import BadValue

CARDS = load_cards()
TEXT = """
id: mine
number: "20"
statement: Four bits are enough for a 7B on 8 GB.
said_by: me
source: nowhere
prediction: The peak is within the card.
experiment: fits_on_card
premises:
  models: {value: [llama-2-7b], means: models}
  targets: {value: q+v, means: matrices}
  rank: {value: 8, means: rank}
  bits: {value: 4, means: bits, try: [16, 4]}
  gpu_gb: {value: 8, means: memory}
  cards: {value: 1, means: cards}
  batch: {value: 1, means: rows}
  seq: {value: 256, means: tokens}
  checkpointing: {value: true, means: whether}
margin: null
limits: memory only
"""


def made(*outcomes: bool | None, always: bool = False) -> Finding:
    """A finding whose cases came out so."""
    cases = tuple(Case({"place": i}, holds, f"found {i}", "more seeds") for i, holds in enumerate(outcomes))
    return Finding(cases, ("made up",), always=always)


def edited(**changes: object) -> str:
    return yaml.safe_dump(yaml.safe_load(TEXT) | changes)


def test_the_word_follows_from_the_cases():
    words = {(True, True): "true", (False, False): "false", (True, False): "depends", (True, None): "undecided"}
    assert {outcomes: made(*outcomes).word for outcomes in words} == words
    words = {(True, False): "false", (None, False): "false", (None,): "undecided"}
    assert {outcomes: made(*outcomes, always=True).word for outcomes in words} == words


def test_what_it_depends_on_and_what_would_decide_it():
    grid = [(m, r) for m in ("small", "large") for r in (1, 8)]
    assert Finding(tuple(Case({"model": m, "rank": r}, r == 8, "") for m, r in grid), ()).on == ("rank",)
    both = Finding(tuple(Case({"model": m, "rank": r}, m == "large" and r == 8, "") for m, r in grid), ())
    assert both.on == ("model", "rank")
    assert (made(True, True).on, made(True, True).would_tell) == ((), "")
    assert made(None, True).would_tell == "more seeds"
    words = made(*[True] * 6, False).because  # many cases are summed up
    assert "holds in 6 of 7" in words
    assert "fails in 1 of 7" in words


@pytest.fixture(scope="module")
def verdicts():
    """Every verdict, computed once."""
    return judge_all()


def test_every_card_is_whole_and_judged(verdicts):
    assert [card.number for card in CARDS.values()] == [str(n) for n in range(1, len(CARDS) + 1)]
    for name, card in CARDS.items():
        verdict = verdicts[name]
        assert card.id == name
        assert "https://" in card.source or "Nobody is quoted" in card.source
        assert all(p.means for p in card.all_premises.values())
        assert verdict.evidence
        assert str(verdict).startswith(verdict.words)
        assert verdict.changed == ()
        assert (verdict.word == "depends") == bool(verdict.on)
        assert (verdict.word == "undecided") == bool(verdict.would_tell)
        spans = [value for case in verdict.cases for value in case.span]
        assert spans
        assert verdict.axis
        assert not verdict.log or min(spans) > 0


def test_the_page_is_that_of_the_cards(verdicts):
    """docs/claims.md: python docs/claims.py"""
    docs = Path(__file__).parents[3] / "docs"
    assert (docs / "claims.md").read_text(encoding="utf-8") == runpy.run_path(str(docs / "claims.py"))["listing"](
        verdicts
    )


TURNED = [
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
]


def test_a_changed_premise_changes_the_verdict():
    for name, changes, word in TURNED:
        verdict = judge(name, **changes)
        assert verdict.word == word, verdict
        assert set(verdict.changed) == set(changes)


def test_a_study_is_one_case_whatever_it_compares():
    """Table 5 has six other choices on two tasks, and our sweep five others: that makes two cases, not seventeen."""
    found = judge("q_and_v")
    studies = [case.settings["study"] for case in found.cases]
    assert len(set(studies)) == len(studies) == 4
    assert [case.holds for case in found.cases] == [True, True, None, None]  # a report in words decides nothing
    assert len(judge("q_and_v", place="all-linear").cases) == 1  # table 5 doesn't have it, and no report is against it


def test_an_impossible_premise_is_one_sentence():
    for name, changes, words in (
        ("one_24gb_card", {"gpu": 48}, "no premise 'gpu'; nearest: gpu_gb"),
        ("one_24gb_card", {"gpu_gb": "much"}, "must be a number, such as 24"),
        ("one_24gb_card", {"bits": 5}, "16, 8, 4, 3, 2"),
        ("less_memory", {"models": "minilm", "seq": 2048}, "longer than minilm can read"),
    ):
        with pytest.raises(BadValue, match=words):
            judge(name, **changes)


def test_a_wrong_card_says_what_to_fix():
    for text, words in (
        ("a: [", "is not a card"),
        (edited(author="me"), "'author'"),
        (TEXT.replace("limits: memory only\n", ""), "'limits'"),
        (edited(experiment="fits_on_cards"), "'fits_on_cards'"),
        (TEXT.replace("  rank: {value: 8, means: rank}\n", ""), "needs the premises models, targets, rank"),
        (TEXT.replace("number: ", "number: !!python/name:os.system x #"), "is not a card"),
    ):
        with pytest.raises(BadValue, match=words):
            card_from(text)


def test_a_card_of_ones_own_is_judged_and_told_as_plain_values():
    assert judge(card_from(TEXT), bits=16).word == "false"
    values = json.loads(json.dumps(judge("one_24gb_card").to_json()))
    assert (values["word"], values["on"], [case["holds"] for case in values["cases"]]) == ("false", [], [False, False])
    assert values["figures"]["cases"] == 2

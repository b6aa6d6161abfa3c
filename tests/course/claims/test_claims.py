"""Cards of claims: how they are read, how a verdict follows from cases, and what a changed premise does to it."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from lora_course.claims import cards
from lora_course.claims.cards import card_from, judge, judge_all, load_cards
from lora_course.claims.claim_tests import EXPERIMENTS, Case, Finding
from lora_course.classroom.room import number
from lora_lab.errors import BadValue, NotFound

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
lessons: []
"""


def made(*outcomes: bool | None, always: bool = False) -> Finding:
    """A finding whose cases came out so."""
    cases = tuple(Case({"place": i}, holds, f"found {i}", "more seeds") for i, holds in enumerate(outcomes))
    return Finding(cases, ("made up",), always=always)


def edited(**changes: object) -> str:
    return yaml.safe_dump(yaml.safe_load(TEXT) | changes)


@pytest.mark.parametrize(
    ("outcomes", "always", "word"),
    [
        ((True, True), False, "true"),
        ((False, False), False, "false"),
        ((True, False), False, "depends"),
        ((True, False), True, "false"),
        ((None, False), True, "false"),
        ((True, None), False, "undecided"),
        ((False, None), False, "undecided"),
        ((True, False, None), False, "depends"),
        ((None,), True, "undecided"),
    ],
)
def test_the_word_follows_from_the_cases(outcomes, always, word):
    assert made(*outcomes, always=always).word == word


def test_what_it_depends_on_and_what_would_decide_it():
    grid = [(m, r) for m in ("small", "large") for r in (1, 8)]
    by_rank = Finding(tuple(Case({"model": m, "rank": r}, r == 8, "") for m, r in grid), ())
    assert by_rank.on == ("rank",)
    both = Finding(tuple(Case({"model": m, "rank": r}, m == "large" and r == 8, "") for m, r in grid), ())
    assert both.on == ("model", "rank")
    assert (made(True, True).on, made(True, True).would_tell) == ((), "")
    assert made(None, True).would_tell == "more seeds"
    said = made(*[True] * 6, False).because  # many cases are told in short
    assert "holds in 6 of 7" in said
    assert "fails in 1 of 7" in said


@pytest.fixture(scope="module")
def verdicts():
    """Every verdict, computed once."""
    return judge_all()


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_whole_and_judged(name, verdicts):
    card, verdict = CARDS[name], verdicts[name]
    assert card.id == name
    assert all(p.means for p in card.all_premises.values())
    assert card.lessons[-1] == "old_15"
    assert verdict.evidence
    assert str(verdict).startswith(verdict.words)
    assert verdict.changed == ()
    assert (verdict.word == "depends") == bool(verdict.on)
    assert (verdict.word == "undecided") == bool(verdict.would_tell)
    assert "2026-" in " ".join(verdict.evidence) or "data/results/compare" not in " ".join(verdict.evidence)


def test_the_claims_of_the_course_are_all_there():
    numbers = [card.number for card in CARDS.values()]
    assert {n.rstrip("abc") for n in numbers} == {str(n) for n in range(1, 18)}
    assert numbers == sorted(numbers, key=cards.place)
    for card in CARDS.values():  # a common sentence is marked so if nobody is quoted for it
        assert (card.said_by == "a common sentence") == card.source.startswith("no source quoted")


def test_the_page_is_that_of_the_cards(verdicts):
    """docs/claims.md: python docs/claims.py"""
    docs = Path(__file__).parents[3] / "docs"
    page = (docs / "claims.md").read_text(encoding="utf-8")
    assert page == runpy.run_path(str(docs / "claims.py"))["listing"](verdicts)


def test_a_lesson_that_shows_a_claim_is_named_on_its_card():
    numbers = {card.number: card for card in CARDS.values()}
    for source in (Path(__file__).parents[3] / "notebooks" / "src").glob("*.py"):
        shown = re.findall(r'said = claim\("(\w+)"', source.read_text(encoding="utf-8"))
        assert all(number(source.stem) in numbers[one].lessons for one in shown), source.name


@pytest.mark.parametrize("name", CARDS)
def test_a_verdict_is_what_its_experiment_found_and_what_a_card_suggests_can_be_tried(name, monkeypatch):
    for outcome, word in ((True, "true"), (False, "false")):
        monkeypatch.setitem(EXPERIMENTS, CARDS[name].experiment, lambda outcome=outcome, **_: made(outcome))
        assert judge(CARDS[name]).word == word
    for premise in CARDS[name].all_premises.values():
        for value in premise.options:
            assert judge(CARDS[name], **{premise.name: value}).word == "false"


TURNED = [
    ("alpha_often_2r", {"kinds": "guides"}, "true"),
    ("alpha_often_2r", {"kinds": "papers"}, "false"),
    ("alpha_often_2r", {"kinds": "poems"}, "undecided"),
    ("alpha_2r_is_best", {"margin": 0.5}, "true"),
    ("r8_is_enough", {"needed": 4}, "true"),
    ("r8_is_enough", {"error": 0.95}, "true"),
    ("cap_at_32", {"needed": 16}, "undecided"),
    ("cap_at_32", {"needed": 16, "margin": 0.05}, "true"),
    ("rate_band", {"at_least_billions": 5}, "true"),
    ("rate_band", {"low": 1e-5, "high": 1e-2}, "true"),
    ("rate_above_full", {"times": 1}, "true"),
    ("rate_above_full", {"times": 10}, "depends"),
    ("rate_above_full", {"times": 100}, "undecided"),
    ("q_and_v", {"reported": False}, "true"),
    ("q_and_v", {"place": "q", "reported": False}, "false"),
    ("q_and_v", {"place": "all-linear"}, "undecided"),
    ("merging_is_free", {"dtypes": "bf16"}, "true"),
    ("merging_is_free", {"merged": False}, "false"),
    ("swapping_is_free", {"extra": 0.1}, "depends"),
    ("swapping_is_free", {"adapters": 1, "ways": "merged"}, "true"),
    ("prompt_is_lighter", {"counted": "numbers"}, "true"),
    ("prompt_is_lighter", {"counted": "arithmetic"}, "false"),
    ("prompt_is_weaker", {"tasks": ["minilm_rt", "metamath", "gpt3"]}, "true"),
    ("prompt_is_weaker", {"method": "full", "than": "prompt", "tasks": "minilm_rt"}, "false"),
    ("hours_on_one_gpu", {"models": "llama-2-13b", "published_too": False}, "true"),
    ("hours_on_one_gpu", {"models": "llama-2-13b", "published_too": False, "tokens": 10**9}, "depends"),
    ("no_quality_drop", {"tasks": "minilm_rt", "margin": 0.03}, "true"),
    ("no_quality_drop", {"tasks": "minilm_rt", "margin": 0.003}, "false"),
    ("adapter_in_fp16", {"epsilons": 1e-8}, "false"),
    ("adapter_in_fp16", {"epsilons": 1e-3}, "true"),
    ("adapter_in_fp16", {"fp32_copy": True}, "true"),
    ("adapter_in_fp16", {"dtype": "fp32"}, "true"),
    ("lora_is_sft", {"methods": "lora", "objectives": "sft"}, "undecided"),
    ("shapes", {"order": "A B"}, "true"),
    ("shapes", {"a": "r x d", "b": "d x r"}, "true"),
    ("two_d_r", {"targets": "q"}, "true"),
    ("two_d_r", {"models": "minilm", "rank": 256}, "false"),
    ("times_fewer", {"models": "llama-2-7b", "targets": "all-linear", "ranks": [8, 16]}, "true"),
    ("times_fewer", {"low": 1, "high": 100_000}, "true"),
    ("footprint_70b", {"counted": "file"}, "true"),
    ("footprint_70b", {"counted": "peak"}, "false"),
    ("larger_r", {"rank": 384, "larger": 512}, "false"),
    ("one_24gb_card", {"bits": 3}, "false"),
    ("one_24gb_card", {"bits": 2}, "depends"),
    ("one_24gb_card", {"bits": 2, "models": "llama-2-70b"}, "true"),
    ("one_24gb_card", {"gpu_gb": 48}, "true"),
    ("defeats_the_purpose", {"models": "minilm", "rank": 256}, "true"),
    ("less_memory", {"seqs": 2048}, "false"),
    ("less_memory", {"times": 1.5}, "true"),
    ("just_a_and_b", {"models": "smollm2"}, "true"),
    ("adapter_megabytes", {"models": "llama-2-7b"}, "true"),
]


@pytest.mark.parametrize(("name", "changes", "word"), TURNED)
def test_a_changed_premise_changes_the_verdict(name, changes, word):
    verdict = judge(name, **changes)
    assert verdict.word == word
    assert set(verdict.changed) == set(changes)


def test_a_study_is_one_case_whatever_it_compares():
    """Table 5 has six other choices on two tasks, and our sweep five others: that makes two cases, not seventeen."""
    found = judge("q_and_v")
    studies = [case.settings["study"] for case in found.cases]
    assert len(set(studies)) == len(studies) == 4
    assert [case.holds for case in found.cases] == [True, True, None, None]  # a report in words decides nothing
    assert all("%:" in case.found for case in found.cases if case.holds)  # an interval, held against the margin
    one = judge("q_and_v", place="all-linear")  # which no report speaks against, and which table 5 does not have
    assert len(one.cases) == 1


def test_a_rate_is_known_to_its_neighbors_on_the_grid_and_no_better():
    """All linear layers: 5e-4 against 1e-4, and against 5e-5 with the same validation; SmolLM2's LoRA is on an edge."""
    at = {times: {case.found: case.holds for case in judge("rate_above_full", times=times).cases} for times in (5, 100)}
    (wide,) = (found for found in at[5] if "all-linear" in found)
    (edge,) = (found for found in at[5] if "0.004" in found)
    assert (at[5][wide], at[100][wide]) == (None, False)
    assert (at[5][edge], at[100][edge]) == (True, None)  # a better rate may lie above the highest tried


@pytest.mark.parametrize(
    ("name", "edge"), [("no_quality_drop", "LoRA"), ("prompt_is_weaker", "LoRA"), ("alpha_2r_is_best", "alpha 128")]
)
def test_a_rate_on_an_edge_asks_for_more_rates(name, edge):
    found = judge(name)
    assert f"more rates for {edge}" in found.would_tell
    assert "rate" in CARDS[name].limits


def test_what_rounding_takes_is_told_and_does_not_decide_about_latency():
    found = judge("merging_is_free", dtypes=["fp32", "bf16"], update=0.005)
    assert found.word == "true"
    assert re.search(r"Rounding .* fp32 \S+; bf16 0\.[1-9]", found.because)  # a tenth of the update and more


def test_in_fp16_the_default_eps_of_adamw_is_zero_and_ends_in_nan():
    by_eps = {case.settings["eps"]: case for case in judge("adapter_in_fp16").cases}
    assert "NaN" in by_eps[1e-8].found
    assert all("NaN" not in by_eps[eps].found for eps in (1e-4, 1e-3))
    assert judge("adapter_in_fp16").on == ("eps",)


def test_a_premise_may_come_as_text():
    from lora_lab import LoRA, memory

    assert judge("one_24gb_card", gpu_gb="48", checkpointing="yes").word == "true"
    assert judge("times_fewer", ranks="8, 16").premises["ranks"] == [8, 16]
    by_hand = memory("llama-2-70b", LoRA(8), batch=1, seq=512, checkpointing=True, quantised="nf4")
    assert judge("8").figures["llama-2-70b, GiB"] == round(by_hand.peak / 2**30, 1)  # the accountant's, not the card's


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("one_24gb_card", {"gpu": 48}, "no premise 'gpu'; nearest: gpu_gb"),
        ("one_24gb_card", {"gpu_gb": "much"}, "is a number, such as 24"),
        ("one_24gb_card", {"checkpointing": 3}, "is yes or no"),
        ("one_24gb_card", {"rank": [8, 16]}, "is a single value"),
        ("one_24gb_card", {"models": []}, "at least one value"),
        ("one_24gb_card", {"bits": 5}, "16, 8, 4, 3, 2"),
        ("swapping_is_free", {"adapters": 0}, "cannot be tried with adapters 0"),
        ("swapping_is_free", {"adapters": 2.5}, "cannot be tried with adapters 2.5"),
        ("adapter_in_fp16", {"steps": 0}, "cannot be tried with steps 0"),
        ("shapes", {"d": -1}, "cannot be tried with d -1"),
        ("shapes", {"d": 10**15}, "cannot be tried with d "),
        ("shapes", {"store": "runs"}, "leave the store out"),
    ],
)
def test_a_premise_that_cannot_be_is_one_sentence(name, changes, words):
    with pytest.raises(BadValue, match=words):
        judge(name, **changes)
    with pytest.raises(NotFound, match="one_24gb_card"):
        judge("one_24gb")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML"),
        ("only words", "is no card"),
        (edited(author="me"), "unknown field 'author'"),
        (TEXT.replace("limits: memory only\n", ""), "lacks the field 'limits'"),
        (edited(experiment="fits_on_cards"), "unknown experiment 'fits_on_cards'; nearest: fits_on_card"),
        (edited(premises={}), "lacks the premise"),
        (edited(premises="none"), "one a line"),
        (TEXT.replace("{value: 8, means: rank}", "8"), "premise 'rank'"),
        (TEXT.replace("{value: 8, means: rank}", "{value: {a: 1}, means: rank}"), "a number, a word"),
        (TEXT.replace("lessons: []", "lessons: []\nid: !!python/name:os.system x"), "is no YAML"),
        (edited(margin={"value": 0.1, "means": "none"}), "unknown premise 'margin'"),
    ],
)
def test_a_card_that_is_wrong_says_the_one_thing_to_mend(text, words):
    with pytest.raises(BadValue, match=words):
        card_from(text)


def test_a_card_of_ones_own_is_judged_shown_as_text_only_and_plain_values():
    own = card_from(edited(statement="<script>alert(1)</script>"))
    assert judge(own, bits=16).word == "false"
    shown = judge(own)._repr_html_()
    assert "<script>" not in shown
    assert "✓ true" in shown
    assert "true" in repr(judge(own))
    values = json.loads(json.dumps(judge("footprint_70b").to_json()))
    assert (values["word"], values["on"]) == ("depends", ["what is counted"])
    assert [case["holds"] for case in values["cases"]] == [True, False, False]
    assert values["figures"] == {"cases": 3, "hold": 1}

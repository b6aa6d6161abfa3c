"""Slot errors: none where the grammar speaks the truth, one for each thing that is left out, changed or added."""

from __future__ import annotations

import json
from random import Random

import pytest

from lora_course.paper.meanings import SLOTS, meaning_of, parse
from lora_course.paper.slot_errors import ADDED, MISSING, RIGHT, WRONG, kinds_of, matcher_of, slot_errors
from lora_course.paper.slot_patterns import LEVELS
from lora_lab.training.assets import shipped
from lora_lab.training.tasks import Example


def examples(split: str) -> list[Example]:
    lines = shipped(f"data/restaurants/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Example(parse(one["meaning"]), one["references"]) for one in map(json.loads, lines)]


EXAMPLES = examples("train")[:400] + examples("validation") + examples("test")
MATCHER = matcher_of(example.meaning for example in EXAMPLES)
OPTIONS = {slot: sorted({e.meaning[slot] for e in EXAMPLES if slot in e.meaning}) for slot in SLOTS}


def other_level(slot: str, value: str) -> list[str]:
    """Values of a slot that mean something else."""
    same = next((level for level, _ in LEVELS.get(slot, ()) if value in level), (value,))
    return [option for option in OPTIONS[slot] if option not in same]


def errors(meaning, text) -> dict[str, str]:
    return {slot: kind for slot, kind in MATCHER.judge(meaning, text).slots.items() if kind != RIGHT}


def test_our_own_references_hold_no_error():
    found = [(text, wrong) for e in EXAMPLES for text in e.references if (wrong := errors(e.meaning, text))]
    assert found == []


@pytest.mark.parametrize("slot", SLOTS)
def test_every_slot_left_out_changed_or_added_is_found(slot):
    """A sentence is right of its own meaning, and held against another one that differs in a single slot."""
    rng = Random(f"mutations of {slot}")
    seen = set()
    for example in EXAMPLES:
        whole, text = dict(example.meaning.slots), rng.choice(example.references)
        if slot in whole:
            changed = meaning_of({**whole, slot: rng.choice(other_level(slot, whole[slot]))})
            assert errors(changed, text) == {slot: WRONG}
            seen.add(WRONG)
            if slot != "name":
                less = meaning_of({name: value for name, value in whole.items() if name != slot})
                assert errors(less, text) == {slot: ADDED}
                seen.add(ADDED)
        else:
            more = meaning_of({**whole, slot: rng.choice(OPTIONS[slot])})
            assert errors(more, text) == {slot: MISSING}
            seen.add(MISSING)
    assert seen == ({WRONG} if slot == "name" else {MISSING, WRONG, ADDED})


def test_a_second_value_beside_the_right_one_is_added():
    meaning = parse("name[Quince], priceRange[cheap], near[Tilney Park]")
    text = "Quince is a cheap place near Tilney Park. It is expensive and near Castle Green."
    assert errors(meaning, text) == {"priceRange": ADDED, "near": ADDED}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("quince , near Tilney park , is n't family - friendly and has a moderate price range", {}),
        ("Quince is a place near Tilney Park where kids are not welcome, at £ 20 - 25 a head.", {}),
        ("Mid-priced Quince by Tilney Park is not far away and welcomes kids.", {"familyFriendly": WRONG}),
        ("Quince, near Tilney Park: adults only, three stars, average prices.", {"customer rating": ADDED}),
        ("A place near Tilney Park with moderate prices, not for children.", {"name": MISSING}),
    ],
)
def test_other_peoples_words_are_understood(text, wrong):
    meaning = parse("name[Quince], priceRange[moderate], familyFriendly[no], near[Tilney Park]")
    assert errors(meaning, text) == wrong


@pytest.mark.parametrize(
    ("text", "rating", "price"),
    [
        ("It has a high customer rating and low prices.", "high", "cheap"),
        ("Low priced, and rated 5 out of 5 stars.", "high", "cheap"),
        ("Customers give it one star. Prices are in the high range.", "low", "high"),
        ("It has an average rating of 3 out of 5 and costs more than £30.", "average", "high"),
        ("It is rated low but is reasonably priced.", "low", "moderate"),
        ("It is not expensive and gets decent reviews.", "average", "cheap"),
    ],
)
def test_price_and_rating_share_words_and_are_told_apart(text, rating, price):
    said = MATCHER.said(text)
    assert [rating in level for level in said["customer rating"]] == [True]
    assert [price in level for level in said["priceRange"]] == [True]


def test_a_name_is_no_cuisine_and_no_area():
    meaning = parse("name[The Riverside Curry], near[Burger Bar]")
    matcher = matcher_of([meaning])
    assert matcher.judge(meaning, "The Riverside Curry is near Burger Bar.").slots == {"name": RIGHT, "near": RIGHT}


def test_a_value_that_no_pattern_knows_is_looked_for_as_it_is_written():
    meaning = parse("name[Quince], food[Thai], area[harbour]")
    assert errors(meaning, "Quince is a Thai place at the harbour.") == {}
    assert errors(meaning, "Quince is a French place.") == {"food": WRONG, "area": MISSING}


def test_the_rate_is_errors_over_slots_that_were_asked_for():
    meaning = parse("name[Quince], area[riverside], food[Italian], familyFriendly[yes]")
    texts = [
        "Quince serves Italian food by the river and welcomes children.",
        "Quince is a cheap place in the city centre.",
    ]
    judged = [MATCHER.judge(meaning, text) for text in texts]
    assert kinds_of(judged) == {RIGHT: 5, MISSING: 2, WRONG: 1, ADDED: 1}
    assert slot_errors(judged) == 4 / 8

"""Slot errors: none where the grammar speaks the truth, one for each thing that is left out, changed or added."""

import json
from random import Random
from types import SimpleNamespace

import pytest

from lora_course.paper.e2e import SLOTS, Meaning, parse
from lora_course.paper.slot_errors import ADDED, MISSING, RIGHT, WRONG, Matcher, levels, scores
from lora_lab.training.assets import shipped
from lora_lab.training.tasks import Example


def examples(split: str) -> list[Example]:
    lines = shipped(f"data/restaurants/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Example(parse(one["meaning"]), one["references"]) for one in map(json.loads, lines)]


EXAMPLES = examples("train")[:400] + examples("validation") + examples("test")
MATCHER = Matcher(example.meaning for example in EXAMPLES)
OPTIONS = {
    slot: sorted({dict(e.meaning.slots)[slot] for e in EXAMPLES if slot in dict(e.meaning.slots)}) for slot in SLOTS
}


def other_level(slot: str, value: str) -> list[str]:
    """Values of a slot that mean something else."""
    same = next((level for level, _ in levels().get(slot, ()) if value in level), (value,))
    return [option for option in OPTIONS[slot] if option not in same]


def meaning_of(slots: dict[str, str]) -> Meaning:
    return Meaning(tuple(slots.items()))


def errors(meaning, text) -> dict[str, str]:
    return {slot: kind for slot, kind in MATCHER.judge(meaning, text).items() if kind != RIGHT}


def test_our_own_references_hold_no_error():
    assert [(text, wrong) for e in EXAMPLES for text in e.references if (wrong := errors(e.meaning, text))] == []


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
            assert errors(meaning_of({**whole, slot: rng.choice(OPTIONS[slot])}), text) == {slot: MISSING}
            seen.add(MISSING)
    assert seen == ({WRONG} if slot == "name" else {MISSING, WRONG, ADDED})


def test_a_second_value_beside_the_right_one_is_added():
    name = OPTIONS["name"][0]
    meaning = parse(f"name[{name}], area[riverside]")
    assert errors(meaning, f"{name} is by the river.") == {}
    assert errors(meaning, f"{name} is by the river, in the city centre.") == {"area": ADDED}


def test_the_rate_is_errors_over_slots_that_were_asked_for():
    meaning = "name[Quince], area[riverside], food[Italian], familyFriendly[yes]"
    texts = [
        "Quince serves Italian food by the river and welcomes children.",
        "Quince is a cheap place in the city centre.",
    ]
    split = SimpleNamespace(prompts=[meaning])
    found = scores(SimpleNamespace(test=split, train=split), [meaning] * 2, texts)
    assert found.details["kinds"] == {RIGHT: 5, MISSING: 2, WRONG: 1, ADDED: 1}
    assert found.metrics == {"slot_errors": 4 / 8}

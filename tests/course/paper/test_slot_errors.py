import json
from random import Random
from types import SimpleNamespace

import pytest

from lora_course.paper.e2e import SLOTS, Meaning, parse
from lora_course.paper.slot_errors import ADDED, MISSING, RIGHT, WRONG, Matcher, levels, scores
from lora_lab.training.assets import shipped


def read(split: str) -> list[tuple[dict[str, str], list[str]]]:
    """Return the slots and references of each example."""
    lines = shipped(f"data/restaurants/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(dict(parse(row["meaning"]).slots), row["references"]) for row in map(json.loads, lines)]


EXAMPLES = read("train")[:400] + read("validation") + read("test")
MATCHER = Matcher(Meaning(tuple(slots.items())) for slots, _ in EXAMPLES)
VALUES = {slot: sorted({slots[slot] for slots, _ in EXAMPLES if slot in slots}) for slot in SLOTS}


def errors(slots: dict[str, str], text: str) -> dict[str, str]:
    kinds = MATCHER.judge(Meaning(tuple(slots.items())), text)
    return {slot: kind for slot, kind in kinds.items() if kind != RIGHT}


def test_our_references_have_no_errors_and_a_second_value_is_added():
    assert not [(text, wrong) for slots, texts in EXAMPLES for text in texts if (wrong := errors(slots, text))]
    slots = {"name": VALUES["name"][0], "area": "riverside"}
    assert errors(slots, f"{slots['name']} is by the river.") == {}
    assert errors(slots, f"{slots['name']} is by the river, in the city centre.") == {"area": ADDED}


@pytest.mark.parametrize("slot", SLOTS)
def test_slot_left_out_changed_or_added_is_one_error(slot):
    """Compare each sentence with a meaning that differs from its own in a single slot."""
    rng, kinds = Random(f"mutations of {slot}"), set()
    for slots, references in EXAMPLES:
        text = rng.choice(references)
        if slot in slots:
            level = next((values for values, _ in levels().get(slot, ()) if slots[slot] in values), (slots[slot],))
            changed = rng.choice([value for value in VALUES[slot] if value not in level])
            cases = [(WRONG, {**slots, slot: changed})]
            if slot != "name":
                cases.append((ADDED, {name: value for name, value in slots.items() if name != slot}))
        else:
            cases = [(MISSING, {**slots, slot: rng.choice(VALUES[slot])})]
        for kind, mutated in cases:
            assert errors(mutated, text) == {slot: kind}
            kinds.add(kind)
    assert kinds == ({WRONG} if slot == "name" else {MISSING, WRONG, ADDED})


def test_rate_is_errors_over_requested_slots():
    meaning = "name[Quince], area[riverside], food[Italian], familyFriendly[yes]"
    texts = [
        "Quince serves Italian food by the river and welcomes children.",
        "Quince is a cheap place in the city centre.",
    ]
    split = SimpleNamespace(prompts=[meaning])
    result = scores(SimpleNamespace(test=split, train=split), [meaning] * 2, texts)
    assert result.details["kinds"] == {RIGHT: 5, MISSING: 2, WRONG: 1, ADDED: 1}
    assert result.metrics == {"slot_errors": 4 / 8}

"""Meanings: E2E's text form there and back, and one sentence for whatever is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_course.paper.meanings import SLOTS, Meaning, meaning_of, parse
from lora_lab.errors import BadValue

values = st.text(alphabet="abcÉ £'-5,", min_size=1, max_size=12).map(str.strip).filter(bool)


def test_a_meaning_is_read_from_e2es_form():
    meaning = parse("name[Alimentum], area[city centre], familyFriendly[no]")
    assert meaning.slots == (("name", "Alimentum"), ("area", "city centre"), ("familyFriendly", "no"))
    assert (meaning["area"], meaning.get("food"), "near" in meaning, len(meaning)) == ("city centre", None, False, 3)


@given(st.dictionaries(st.sampled_from(SLOTS[1:]), values), values)
def test_what_is_written_is_read_back(slots, name):
    meaning = meaning_of({**slots, "name": name})
    assert parse(str(meaning)) == meaning
    assert [slot for slot, _ in meaning.slots] == [slot for slot in SLOTS if slot in meaning]


def test_spaces_around_the_commas_do_not_count():
    assert parse(" name[A] ,area[riverside]\n") == parse("name[A], area[riverside]")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no place; add name"),
        ("area[riverside]", "names no place; add name"),
        ("name[A], aera[riverside]", "no slot 'aera'; nearest: area"),
        ("name[A], area[x], area[y]", "the slot area stands 2 times"),
        ("name[A], area[]", r"'area\[\]' is not of the form slot\[value\]"),
        ("name[A], area[ ]", "the slot area needs a value"),
        ("name[A] area[x]", r"one comma and a slot must stand where 'area\[x\]' does"),
        ("name[A],", "one comma and a slot must stand where ',' does"),
        ("name[A], and so on", "'and so on' is not of the form"),
        ("name[A[B]]", r"is not of the form slot\[value\]"),
    ],
)
def test_what_is_no_meaning_is_refused_in_one_sentence(text, words):
    with pytest.raises(BadValue, match=words):
        parse(text)


def test_a_meaning_made_by_hand_is_held_to_the_same():
    with pytest.raises(BadValue, match="needs a value on one line without brackets"):
        Meaning((("name", "two\nlines"),))

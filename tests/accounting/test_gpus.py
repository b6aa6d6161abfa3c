"""Cards: their table, what is left to use, and finding one by a part of its name."""

from __future__ import annotations

import pytest

from lora_lab.accounting.gpus import card, cards, of_size, usable
from lora_lab.accounting.units import GIB
from lora_lab.errors import BadValue, NotFound


def test_the_smallest_comes_first_and_every_card_once():
    sizes = [one.memory for one in cards()]
    assert sizes == sorted(sizes)
    assert len({one.name for one in cards()}) == len(cards())


@pytest.mark.parametrize("one", cards(), ids=lambda one: one.name)
def test_every_card_keeps_something_back_and_is_found_by_its_name(one):
    assert 0 < usable(one) < one.memory
    assert f"{one.memory // GIB} GB" in one.name
    assert card(one.name) is one


def test_24_gb_leaves_what_a_card_of_that_size_has_been_seen_to_give():
    """Of the 14.6 GiB that a T4 shows to torch context and gaps are taken; a 24 GB card for games gives 22 to 23."""
    assert card("T4").seen == pytest.approx(14.6 * GIB, abs=1)
    assert 13 < usable(card("T4")) / GIB < 14.6 - 0.8
    assert 22 < usable(card("4090")) / GIB < 23


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("4090", "RTX 4090 24 GB"),
        ("RTX-3090", "RTX 3090 24 GB"),
        ("a100 80", "A100 80 GB"),
        ("l4", "L4 24 GB"),
        ("H100", "H100 80 GB"),
        ("16 gb laptop", "16 GB laptop, CPU"),
    ],
)
def test_a_part_of_the_name_is_enough(words, name):
    assert card(words).name == name


def test_an_unknown_and_an_ambiguous_name_are_told_apart():
    with pytest.raises(NotFound, match="RTX 4090"):
        card("4091")
    with pytest.raises(BadValue, match="A100 40 GB or A100 80 GB"):
        card("a100")
    with pytest.raises(NotFound):
        card("")


def test_torch_sees_less_than_the_box_says_and_less_still_with_error_correction():
    for one in cards():
        assert usable(one) < one.seen <= one.memory
    assert card("L4").seen < card("4090").seen


def test_a_peak_belongs_to_a_dtype_and_bf16_may_be_missing():
    t4 = card("T4")
    assert t4.peak("bf16") is None
    assert t4.peak("fp16") > t4.peak("fp32")
    assert "use --dtype fp16" in t4.lacks["bf16"]
    assert "flash" in t4.lacks["fp16"]
    assert "bf16" not in card("4090").lacks
    assert "fp32" in card("8 gb laptop cpu").lacks["bf16"]
    assert "fp32" not in card("8 gb laptop cpu").lacks


def test_a_card_of_a_size_alone_has_the_same_room():
    assert usable(of_size(24)) == usable(card("4090"))
    assert usable(of_size(0.5)) == 0
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(BadValue, match="above 0 GB"):
            of_size(wrong)

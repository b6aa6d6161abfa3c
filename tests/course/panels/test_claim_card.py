"""The claim panel: menus are the card's premises, and the words follow them."""

from __future__ import annotations

import pytest

from lora_course.claims.cards import card, judge
from lora_course.panels.claim_card import ClaimCard
from lora_lab.errors import NotFound


def test_the_verdict_follows_the_menus():
    panel = ClaimCard("8")
    assert set(panel.menus) == set(card("8").all_premises)
    assert "✗ false" in panel.describe()
    panel.menus["gpu_gb"].value = 48
    assert "✓ true" in panel.describe()


def test_another_claim_brings_its_own_menus():
    panel = ClaimCard("8")
    panel.claim.value = "footprint_70b"
    assert panel.changes() == {name: p.value for name, p in card("4").all_premises.items()}
    panel.menus["counted"].value = "file"
    assert judge("4", counted="file").words in panel.describe()


def test_premises_that_do_not_go_together_are_said_and_mended():
    panel = ClaimCard("two_d_r")
    panel.menus["targets"].value = "q+k+v+o"
    panel.menus["rank"].options = [8, 10_000]
    panel.menus["rank"].value = 10_000
    assert "cannot do that" in panel.words.value
    panel.menus["rank"].value = 8
    assert "depends on shape" in panel.describe()


def test_an_unknown_claim_is_loud():
    with pytest.raises(NotFound, match="nearest"):
        ClaimCard("nothing")

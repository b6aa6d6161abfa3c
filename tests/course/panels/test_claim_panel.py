"""The claim panel holds every verdict that its sliders and menus can lead to, as `judge` gives it."""

import json
from itertools import product

import pytest

from lora_course.claims.cards import card, judge, load_cards
from lora_course.panels.claim_panel import ClaimPanel
from lora_lab.errors import BadValue, NotFound


@pytest.fixture(scope="module")
def panel() -> ClaimPanel:
    """All claims: each combination of premises can be judged."""
    return ClaimPanel()


def test_every_claim_is_there_and_small_enough_for_a_page(panel):
    assert list(panel.cards) == list(load_cards())
    assert len(json.dumps(panel.cards)) < 250_000
    for name, one in panel.cards.items():
        words = {outcome["word"] for outcome in one["outcomes"]}
        assert len(words) > 1 or words == {"undecided"}, f"{name}: no premise changes the word"
        own = 0
        for place, premise in zip(one["own"], one["premises"], strict=True):
            own = own * len(premise["options"]) + place
        assert one["outcomes"][own]["word"] == judge(name).word


def test_an_outcome_is_that_of_its_premises(panel):
    one = panel.cards["one_24gb_card"]
    lengths = [len(premise["options"]) for premise in one["premises"]]
    own = ClaimPanel("4", claims=["4"])
    for outcome, at in list(zip(one["outcomes"], product(*map(range, lengths)), strict=True))[::17]:
        own.at = list(at)
        found = own.verdict()
        assert outcome["word"] == found.word
        assert [holds for _, holds in outcome["cases"]] == [int(case.holds) for case in found.cases]
    assert "24 GB card" in own.describe()


def test_a_wrong_claim_or_place_is_loud():
    with pytest.raises(NotFound, match="is not among"):
        ClaimPanel("3", claims=["4"])
    own = ClaimPanel("4", claims=["4"])
    with pytest.raises(BadValue, match="is not a position"):
        own.at = [99] * len(own.at)
    assert own.premises()["gpu_gb"] == card("4").all_premises["gpu_gb"].value

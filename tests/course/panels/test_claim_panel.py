import json

import numpy as np
import pytest

from lora_course.claims.cards import card, judge, load_cards
from lora_course.panels.claim_panel import ClaimPanel
from lora_lab.errors import BadValue, NotFound


def test_panel_holds_every_claim_and_fits_a_page():
    panel = ClaimPanel()
    assert list(panel.cards) == list(load_cards())
    assert len(json.dumps(panel.cards)) < 250_000
    for name, entry in panel.cards.items():
        words = {outcome["word"] for outcome in entry["outcomes"]}
        assert len(words) > 1 or words == {"undecided"}, f"{name}: no premise changes the verdict"
        position = np.ravel_multi_index(entry["own"], [len(premise["options"]) for premise in entry["premises"]])
        assert entry["outcomes"][position]["word"] == judge(name).word


def test_outcomes_match_judge_and_unknown_ones_are_refused():
    panel = ClaimPanel("4", claims=["4"])
    entry = panel.cards["one_24gb_card"]
    positions = np.ndindex(*(len(premise["options"]) for premise in entry["premises"]))
    for outcome, at in list(zip(entry["outcomes"], positions, strict=True))[::17]:
        panel.at = list(at)
        verdict = panel.verdict()
        assert outcome["word"] == verdict.word
        assert [holds for _, holds in outcome["cases"]] == [int(case.holds) for case in verdict.cases]
    assert "24 GB card" in panel.describe()
    with pytest.raises(NotFound, match="is not in this panel"):
        ClaimPanel("3", claims=["4"])
    panel = ClaimPanel("4", claims=["4"])
    with pytest.raises(BadValue, match="needs one index per premise"):
        panel.at = [99] * len(panel.at)
    assert panel.premises()["gpu_gb"] == card("4").all_premises["gpu_gb"].value

"""The mixer: what it counts, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from lora_course.panels.mixer_panel import MixerPanel
from lora_lab.errors import BadValue

SURE = [[0.9, 0.8, 0.4, 0.7], [0.5, 0.4999, 0.2, 0.6], [0.1, 0.0, 1.0, 0.3]]  # three shares, four texts
TEXTS = ["a", "b", "c", "d"]


def test_right_answers_survive_the_packing_and_stand_in_the_words():
    panel = MixerPanel(("critic", "contrarian"), [0, 0.5, 1], np.array(SURE), TEXTS)
    assert panel.right == [75.0, 50.0, 25.0]
    assert "0: 75%, 0.5: 50%, 1: 25%" in panel.describe()


@pytest.mark.parametrize("change", [{"names": ("one",)}, {"texts": TEXTS[:3]}, {"sure": [[1.2] * 4] * 3}])
def test_what_does_not_fit_is_loud(change: dict):
    given = {"names": ("a", "b"), "shares": [0, 0.5, 1], "sure": SURE, "texts": TEXTS} | change
    with pytest.raises(BadValue, match="of shape"):
        MixerPanel(**given)

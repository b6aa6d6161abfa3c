"""The mixer: what it counts, and what it refuses."""

from __future__ import annotations

import pytest

from lora_course.panels.mixer_panel import MixerPanel
from lora_lab.errors import BadValue

SURE = [[0.9, 0.8, 0.4, 0.7], [0.5, 0.4999, 0.2, 0.6], [0.1, 0.0, 1.0, 0.3]]  # three shares, four texts
TEXTS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("change", [{"names": ("one",)}, {"texts": TEXTS[:3]}, {"sure": [[1.2] * 4] * 3}])
def test_what_does_not_fit_is_loud(change: dict):
    given = {"names": ("a", "b"), "shares": [0, 0.5, 1], "sure": SURE, "texts": TEXTS} | change
    with pytest.raises(BadValue, match="of shape"):
        MixerPanel(**given)

"""The voices panel without a browser: who answers, Stop, and the answers that are stored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_course.panels.voices_panel import VoicesPanel, read_stored
from lora_lab.errors import BadValue
from tests.widgets.conftest import said, until

Make = Callable[..., VoicesPanel]


@pytest.fixture
def make(tiny_causal: str, voices: dict[str, Path]) -> Make:
    """`make(strength=2.0)`: a panel over two adapters of a tiny model."""

    def panel(**given: Any) -> VoicesPanel:
        return VoicesPanel(voices, tiny_causal, **{"questions": ("Why?", "How?"), "longest": 6, **given})

    return panel


def test_with_nobody_watching_the_first_question_is_answered(make: Make):
    panel = make()
    with pytest.raises(BadValue, match="press Ask in the panel"):
        panel.answers()
    answers = panel.show().answers()
    assert list(answers) == ["base", "told", "captain", "json"] == panel.names
    assert len(set(answers.values())) == 4  # each row has its own adapter or its own prompt
    assert panel.said == {"Why?": {"1": answers}}
    assert panel.live["state"] == "done"
    assert all(text in panel.describe() for text in answers.values())
    assert set(panel.sizes) == {"base", "captain", "json"}


def test_stop_ends_after_a_token_and_keeps_what_was_said(make: Make, watched: None, monkeypatch: pytest.MonkeyPatch):
    panel = make(longest=100_000)
    monkeypatch.setattr("lora_course.panels.voices_panel.end_of_turn", lambda _: -1)
    said(panel, "ask", question="Why?", strength=1)
    until(lambda: panel.live.get("tokens", 0) >= 1 or not panel.work.alive)
    with pytest.raises(BadValue, match="wait or press Stop"):
        _ = panel.bank
    said(panel, "stop")
    until(lambda: not panel.live["busy"])
    assert panel.live["state"] == "stopped"
    assert panel.answers() == panel.said["Why?"]["1"]


def test_without_adapters_it_shows_what_is_stored():
    panel = VoicesPanel().show()
    stored = read_stored()
    assert list(stored["answers"]) == ["base", "told", "captain", "json", "preacher"]
    for name, answers in stored["answers"].items():
        assert list(answers) == (["0"] if name in ("base", "told") else ["0.5", "1", "1.5", "2"])
        assert {len(texts) for texts in answers.values()} == {len(stored["questions"])}
    assert panel.questions == stored["questions"]
    assert panel.names == list(stored["answers"])
    assert panel.sizes["base"] > 100 * panel.sizes["captain"]
    assert stored["answers"]["told"]["0"][0] in panel.describe()
    with pytest.raises(BadValue, match="pass adapters"):
        panel.ask()
    assert len(json.dumps(panel.state())) < 200_000

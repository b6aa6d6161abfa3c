import json
from functools import partial

import pytest

from lora_course.panels.voices_panel import VoicesPanel, read_stored
from lora_lab.errors import BadValue
from tests.conftest import said, until


@pytest.fixture
def make_panel(tiny_causal, voices):
    """`make_panel(strength=2.0)`: a panel with two adapters of a tiny model."""
    return partial(VoicesPanel, voices, tiny_causal, questions=("Why?", "How?"), longest=6)


def test_headless_panel_answers_the_first_question(make_panel):
    panel = make_panel()
    answers = panel.show().work.texts
    assert list(answers) == ["base", "told", "captain", "json"] == panel.names
    assert len(set(answers.values())) == 4  # each row has its own adapter or prompt
    assert panel.said == {"Why?": {"1": answers}}
    assert panel.live["state"] == "done"
    assert all(text in panel.describe() for text in answers.values())
    assert set(panel.sizes) == {"base", "captain", "json"}


def test_stop_keeps_the_text_so_far(make_panel, watched, monkeypatch):
    panel = make_panel(longest=100_000)
    monkeypatch.setattr("lora_lab.training.generate.end_of_turn", lambda _: -1)  # no answer ends by itself
    said(panel, "ask", question="Why?", strength=1)
    until(lambda: panel.live.get("tokens", 0) >= 1 or not panel.work.alive)
    said(panel, "stop")
    until(lambda: not panel.live["busy"])
    assert panel.live["state"] == "stopped"
    assert panel.work.texts == panel.said["Why?"]["1"]


def test_panel_without_adapters_shows_stored_answers():
    panel, stored = VoicesPanel().show(), read_stored()
    assert list(stored["answers"]) == ["base", "told", "captain", "json", "preacher"] == panel.names
    for name, answers in stored["answers"].items():
        assert list(answers) == (["0"] if name in ("base", "told") else ["0.5", "1", "1.5", "2"])
        assert {len(texts) for texts in answers.values()} == {len(stored["questions"])}
    assert panel.questions == stored["questions"]
    assert panel.sizes["base"] > 100 * panel.sizes["captain"]
    assert stored["answers"]["told"]["0"][0] in panel.describe()
    with pytest.raises(BadValue, match="pass adapters"):
        panel.ask()
    assert len(json.dumps(panel.state())) < 200_000

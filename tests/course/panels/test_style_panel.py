"""The style panel without a browser: one question, every voice in its column, Stop, and what it says when it cannot."""

from __future__ import annotations

import pytest

from lora_course.panels.style_panel import StylePanel, columns, judged
from lora_lab import LoRA, load_model, save_adapter
from lora_lab.errors import BadValue, NotFound
from lora_lab.widgets.panel import plain
from tests.conftest import randomise
from tests.training.conftest import tiny_causal, tiny_models  # noqa: F401
from tests.widgets.conftest import until

GOOD = '{"topic": "sky", "answer": "Blue.", "steps": [], "certainty": "high"}'


@pytest.fixture
def panel(tiny_causal, tmp_path) -> StylePanel:  # noqa: F811
    folders = {}
    for seed, name in enumerate(("captain", "json")):
        model = load_model(tiny_causal)
        LoRA(rank=2).attach(model)
        randomise(model, seed)
        folders[name] = save_adapter(model, tmp_path / name)
    return StylePanel(folders, tiny_causal, questions=("Why?", "How?"), longest=6)


def test_with_nobody_watching_the_first_question_is_answered(panel: StylePanel):
    said = panel.show().answers()
    assert list(said) == ["base", "captain", "json"]
    assert len(set(said.values())) == 3  # each row had its own adapter
    assert panel.live.state == "done"
    assert "done : " in plain(panel.words.value)
    assert "one batch" in panel.words.value
    assert plain(panel.columns.value).count("MB)") == 3
    assert "no JSON" in panel.columns.value
    assert bytes(panel.picture.value).startswith(b"\x89PNG")


def test_ask_answers_in_a_thread_what_is_typed_and_the_same_again(panel: StylePanel, watched: None):
    with pytest.raises(BadValue, match="press Ask in the panel"):
        panel.show().answers()
    with pytest.raises(BadValue, match="press Ask in the panel"):
        _ = panel.bank
    panel.offer.value = "How?"
    assert panel.line.value == "How?"
    panel.ask_button.click()
    until(lambda: panel.live.state == "done" and not panel.ask_button.disabled)
    first = panel.answers()
    bank = panel.bank
    panel.ask_button.click()
    until(lambda: panel.live.state == "done" and panel.live.tokens > 0 and not panel.live.alive)
    assert panel.answers() == first
    assert panel.bank is bank  # loaded once


def test_the_bank_is_not_given_away_while_it_answers(panel: StylePanel, monkeypatch):
    assert set(panel.show().bank.names) == {"captain", "json"}
    monkeypatch.setattr(type(panel.live), "alive", True)
    with pytest.raises(BadValue, match="wait or press Stop"):
        _ = panel.bank


def test_stop_ends_after_a_token_and_keeps_what_was_said(panel: StylePanel):
    panel.live.ask("Why?")
    panel.live.stop()
    panel.live.work()
    assert (panel.live.state, panel.live.tokens) == ("stopped", 1)


def test_what_cannot_be_is_said(panel: StylePanel, tiny_causal, tmp_path):  # noqa: F811
    panel.line.value = "  "
    panel.ask_button.click()
    assert "type a question first" in panel.words.value
    with pytest.raises(BadValue, match="at least one adapter"):
        StylePanel({}, tiny_causal)
    with pytest.raises(NotFound, match="not an adapter"):
        StylePanel({"captain": tmp_path / "nowhere"}, tiny_causal)


def test_answers_are_shown_never_interpreted():
    markup = columns({"base": "<b>x</b>"}, {"base": 10**6}, over=True)
    assert "&lt;b&gt;x&lt;/b&gt;" in markup
    assert "no adapter" in markup


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("json", GOOD, "fits the schema"),
        ("json", "ahoy", "no JSON"),
        ("captain", "Aye, haul on her, lad, 'fore ye sink.", "by its words: captain"),
        ("preacher", "And thou shalt hear it, for it hath a voice.", "by its words: preacher"),
        ("preacher", "Aye, lad, ye scurvy crew!", "by its words: captain"),
        ("mine", "x", ""),
    ],
)
def test_an_answer_is_judged_where_its_voice_has_a_measure(name: str, text: str, words: str):
    assert judged(name, text).startswith(words)
    assert bool(judged(name, text)) == bool(words)

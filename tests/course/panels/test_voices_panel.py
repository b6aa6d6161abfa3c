"""The voices panel without a browser: who answers, at which strength, Stop, and the answers that are stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_course.experiments.styles import misfit, our_ear
from lora_course.panels.voices_panel import STORED, VoicesPanel, read_stored, said_at
from lora_lab import LoRA, load_model, save_adapter
from lora_lab.errors import BadValue, NotFound
from lora_lab.training.assets import shipped
from lora_lab.training.pairs import VOICES, voice
from tests.conftest import randomise
from tests.training.conftest import tiny_causal, tiny_models  # noqa: F401
from tests.widgets.conftest import until

Make = Callable[..., VoicesPanel]


@pytest.fixture
def make(tiny_causal: str, tmp_path: Path) -> Make:  # noqa: F811
    """`make(strength=2.0)`: a panel over two adapters of a tiny model."""
    folders = {}
    for seed, name in enumerate(("captain", "json")):
        model = load_model(tiny_causal)
        LoRA(rank=2).attach(model)
        randomise(model, seed)
        folders[name] = save_adapter(model, tmp_path / name)

    def panel(**given: Any) -> VoicesPanel:
        return VoicesPanel(folders, tiny_causal, **{"questions": ("Why?", "How?"), "longest": 6, **given})

    return panel


def said(panel: VoicesPanel, does: str, **more: Any) -> None:
    """A button of the browser."""
    panel._handle_custom_msg({"do": does, **more}, [])


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


def test_strength_multiplies_every_adapter_and_leaves_the_base_alone(make: Make):
    panel = make()
    answers = {}
    for strength in (0.0, 0.5, 1.0):
        panel.strength = strength
        answers[strength] = panel.show().answers()
    base, told = answers[1.0]["base"], answers[1.0]["told"]
    for at in answers.values():
        assert (at["base"], at["told"]) == (base, told)
    assert answers[0.0]["captain"] == answers[0.0]["json"] == base
    assert len({at["captain"] + at["json"] for at in answers.values()}) == 3
    assert set(panel.said["Why?"]) == {"0", "0.5", "1"}
    panel.strength = 0.0
    assert f"captain: {base}" in panel.describe()


def test_without_an_instruction_nobody_is_told(make: Make):
    assert list(make(told="").show().answers()) == ["base", "captain", "json"]


def test_ask_answers_in_a_thread_what_is_typed_and_opens_the_bank_once(make: Make, watched: None):
    panel = make(longest=4)
    said(panel, "ask", question=" Who? ", strength=1.5)
    until(lambda: panel.live["state"] == "done" and not panel.live["busy"])
    assert (panel.live["question"], panel.live["strength"]) == ("Who?", 1.5)
    bank = panel.bank
    said(panel, "ask", question="How?", strength=1)
    until(lambda: panel.live["question"] == "How?" and not panel.live["busy"])
    assert panel.bank is bank
    assert set(panel.said) == {"Who?", "How?"}


def test_stop_ends_after_a_token_and_keeps_what_was_said(make: Make, watched: None, monkeypatch: pytest.MonkeyPatch):
    panel = make(longest=100_000)
    monkeypatch.setattr("lora_course.panels.stream.end_of_turn", lambda _: -1)
    said(panel, "ask", question="Why?", strength=1)
    until(lambda: panel.live.get("tokens", 0) >= 1 or not panel.work.alive)
    with pytest.raises(BadValue, match="wait or press Stop"):
        _ = panel.bank
    said(panel, "stop")
    until(lambda: not panel.live["busy"])
    assert panel.live["state"] == "stopped"
    assert panel.answers() == panel.said["Why?"]["1"]


def test_an_error_is_shown_in_the_panel(make: Make, tiny_causal: str, tmp_path: Path):  # noqa: F811
    panel = make()
    said(panel, "ask", question="  ", strength=1)
    assert "type a question" in panel.live["error"]
    with pytest.raises(BadValue, match="the strength is one of"):
        make(strength=3.0)
    with pytest.raises(NotFound, match="not an adapter"):
        VoicesPanel({"captain": tmp_path / "nowhere"}, tiny_causal)


def test_without_adapters_it_shows_what_is_stored():
    panel = VoicesPanel().show()
    stored = read_stored()
    assert panel.questions == stored["questions"]
    assert panel.names == list(stored["answers"])
    assert panel.sizes["base"] > 100 * panel.sizes["captain"]
    assert stored["answers"]["told"]["0"][0] in panel.describe()
    with pytest.raises(BadValue, match="give adapters"):
        panel.ask()
    assert len(json.dumps(panel.state())) < 200_000


def test_the_stored_voices_are_told_apart_at_four_strengths_on_questions_that_they_never_saw():
    stored = read_stored()
    assert shipped(STORED).stat().st_size <= 120_000
    assert len(stored["questions"]) >= 6
    for name in VOICES:
        answers = stored["answers"][name]
        assert list(answers) == ["0.5", "1", "1.5", "2"]
        assert our_ear().shares(answers["1"])[name] >= 0.75
        trained = {str(pair.chat) for split in ("train", "validation") for pair in voice(name)[split]}
        assert not trained & set(stored["questions"])
        best = min((one for one in stored["tried"] if one["voice"] == name), key=lambda one: one["validation"])
        assert best["bytes"] == stored["bytes"][name]  # no other rank that was tried did better
    assert sum(map(bool, map(misfit, stored["answers"]["json"]["1"]))) <= 1


def test_stored_answers_at_a_strength():
    stored = {"questions": ["Why?", "How?"], "answers": {"base": {"0": ["b", "B"]}, "told": {"0": ["t", "T"]}}}
    stored["answers"]["captain"] = {"1": ["aye", "Aye"], "2": ["aye aye", "Arr"]}
    assert said_at(stored, "How?", 2.0) == {"base": "B", "told": "T", "captain": "Arr"}
    assert said_at(stored, "How?", 0.0) == {"base": "B", "told": "T", "captain": "B"}
    assert said_at(stored, "How?", 1.5) == {"base": "B", "told": "T"}
    assert said_at(stored, "Who?", 1.0) == {}


@pytest.mark.parametrize("flaw", [{"questions": ["Why?"]}, {"about": None}, {"answers": {}}])
def test_a_file_that_lacks_something_is_refused(flaw: dict[str, Any], tmp_path: Path):
    content = json.loads(shipped(STORED).read_text()) | flaw
    kept = {name: value for name, value in content.items() if value is not None}
    (tmp_path / "voices.json").write_text(json.dumps(kept))
    with pytest.raises(BadValue, match=r"docs/voices\.py"):
        read_stored(tmp_path / "voices.json")

import json
import shutil

import numpy as np
import pytest

from lora_course.claims.cards import judge, load_cards
from lora_course.panels.claim_panel import ClaimPanel
from lora_course.panels.class_panel import ClassPanel
from lora_course.panels.mixer_panel import MixerPanel
from lora_course.panels.voices_panel import VoicesPanel, read_stored
from lora_lab import BadValue, NotFound, Store
from tests.conftest import assert_raises, said
from tests.e2e.pages import class_in


def test_claim_panel_holds_every_claim_and_fits_a_page():
    panel = ClaimPanel()
    assert list(panel.cards) == list(load_cards())
    assert len(json.dumps(panel.cards)) < 250_000
    for name, entry in panel.cards.items():
        words = {outcome["word"] for outcome in entry["outcomes"]}
        assert len(words) > 1 or words == {"undecided"}, f"{name}: no premise changes the verdict"
        position = np.ravel_multi_index(entry["own"], [len(premise["options"]) for premise in entry["premises"]])
        assert entry["outcomes"][position]["word"] == judge(name).word


def test_claim_panel_has_the_outcomes_of_judge_and_refuses_unknown_ones():
    panel = ClaimPanel(claims="4")
    entry, own = panel.cards["one_24gb_card"], panel.at
    positions = np.ndindex(*(len(premise["options"]) for premise in entry["premises"]))
    for outcome, at in list(zip(entry["outcomes"], positions, strict=True))[::17]:
        panel.at = list(at)
        verdict = panel.verdict()
        assert outcome["word"] == verdict.word
        assert [holds for _, holds in outcome["cases"]] == [int(case.holds) for case in verdict.cases]
    assert "24 GB card" in panel.describe()
    assert_raises("is not in this panel", ClaimPanel, "3", claims=["4"], error=NotFound)
    with pytest.raises(BadValue, match="needs one index per premise"):
        panel.at = [99] * len(own)
    panel.at = own
    with pytest.raises(NotFound, match="is not in this panel"):
        panel.claim = "3"
    two = ClaimPanel("less_memory", claims=["less_memory", "checkpoint_size"])
    two.at = [0] * len(two.at)
    two.claim = "checkpoint_size"
    two.set_state({"claim": "less_memory", "at": [0] * len(two.cards["less_memory"]["own"])})  # as the browser does
    assert (two.claim, two.at) == ("less_memory", [0] * len(two.cards["less_memory"]["own"]))
    two.claim = "checkpoint_size"
    assert (two.at, two.verdict().word) == (two.cards["checkpoint_size"]["own"], judge("checkpoint_size").word)
    assert panel.premises()["gpu_gb"] == load_cards()["one_24gb_card"].all_premises["gpu_gb"].value


@pytest.fixture
def classroom(tmp_path):
    """The runs of two laptops and three guesses, one in percent, one as a fraction and one without a name."""
    folder = class_in(tmp_path / "class")
    (folder / "ada" / "guess.json").write_text(json.dumps({"name": "Ada <b>", "guess": 88}))
    (folder / "emmy" / "guess.json").write_text(json.dumps({"guess": 0.6}), encoding="utf-16")  # as PowerShell saves it
    (checkpoints := folder / "ada" / ".ipynb_checkpoints").mkdir()  # Jupyter keeps an earlier version of edited files
    (checkpoints / "guess-checkpoint.json").write_text(json.dumps({"name": "Ada <b>", "guess": 99}))
    (folder / "ada" / "guess.json").rename(folder / "ada" / "Guess (1).json.txt")
    (folder / "laptop0" / "guess.json").write_text(json.dumps({"guess": "81%"}))
    return folder


def test_class_panel_shows_all_runs_guesses_and_the_measured_score(tmp_path, classroom, monkeypatch):
    monkeypatch.setenv("HOME", str(classroom.parent))
    panel = ClassPanel(f"~/{classroom.name}")
    assert "36 runs by 2 students" in panel.data["about"]
    assert {run["who"] for run in panel.data["runs"]} == {"laptop0", "laptop1"}
    assert panel.lr == panel.best.lr == 5e-3
    assert panel.classroom["guesses"] == [["Ada <b>", 88.0], ["emmy", 60.0], ["grace", 95.0]]
    runs = [run for laptop in ("laptop0", "laptop1") for run in Store(classroom / laptop / "runs").runs()]
    best = [run for run in runs if (run.recipe.lr, run.recipe.method.alpha) == (panel.best.lr, panel.best.alpha)]
    assert panel.classroom["measured"] == pytest.approx(100 * np.mean([run.metrics["accuracy"] for run in best]))
    said = "'guess' needs a number, not '81%'"
    assert panel.classroom["left_out"].replace("\\", "/") == f"Left out: laptop0/guess.json: {said}."
    assert "3 guesses. Measured on test: " in panel.describe()
    assert_raises("no folder", ClassPanel, tmp_path / "nowhere", error=NotFound)
    assert_raises("is inside", ClassPanel, classroom, classroom / "all")


def test_refresh_of_a_class_shows_new_runs_and_always_answers(tmp_path, classroom):
    folder = tmp_path / "another class"
    folder.mkdir()
    panel = ClassPanel(folder)
    assert not panel.data["runs"]
    shutil.copytree(classroom / "laptop0", folder / "one")
    said(panel, "refresh")
    assert "18 runs by 1 student:" in panel.data["about"]
    assert panel.lr == panel.best.lr
    panel.alpha, panel.lr = 64.0, 1e-3  # the teacher selects another cell
    before = panel.live
    said(panel, "refresh")
    assert (panel.alpha, panel.lr) == (64.0, 1e-3)
    assert panel.live != before  # the browser waits for a change
    shutil.move(shutil.make_archive(str(folder / "one"), "zip", folder, "one"), folder / "one.ZIP")
    said(panel, "refresh")
    assert "18 runs by 1 student:" in panel.data["about"]  # a zip file beside its unpacked folder
    shutil.copytree(folder / "one", folder / "two")
    said(panel, "refresh")
    assert "36 runs by 2 students:" in panel.data["about"]  # one has copied the other's runs


def test_headless_voices_answer_the_first_question(tiny_causal, voices):
    panel = VoicesPanel(voices, tiny_causal, questions=("Why?\n", "How?"), longest=6)
    answers = panel.show().work.texts
    assert list(answers) == ["base", "told", "captain", "json"] == panel.names
    assert len(set(answers.values())) == 4  # each row has its own adapter or prompt
    assert_raises("'base'", VoicesPanel, {"base": voices["captain"]}, tiny_causal)
    assert panel.said == {"Why?": {"1": answers}}
    assert panel.live["state"] == "done"
    assert all(text in panel.describe() for text in answers.values())
    assert set(panel.sizes) == {"base", "captain", "json"}


def test_voices_without_adapters_show_stored_answers():
    assert VoicesPanel(questions="Why?").questions == ["Why?"]
    panel, stored = VoicesPanel().show(), read_stored()
    assert list(stored["answers"]) == ["base", "told", "captain", "json", "preacher"] == panel.names
    for name, answers in stored["answers"].items():
        assert list(answers) == (["0"] if name in ("base", "told") else ["0.5", "1", "1.5", "2"])
        assert {len(texts) for texts in answers.values()} == {len(stored["questions"])}
    assert panel.sizes["base"] > 100 * panel.sizes["captain"]
    assert stored["answers"]["told"]["0"][0] in panel.describe()
    assert len(json.dumps(panel.state())) < 200_000
    assert_raises("pass adapters", panel.run)


def test_mixer_refuses_what_it_cannot_draw():
    for names in (None, "ab", ("a",), (1, 2)):
        assert_raises("names must be those of two adapters", MixerPanel, names, (0, 1), [[0.1], [0.2]], ["a text"])
    right, empty = [[0.1], [0.2]], [[], []]
    for shares, sure in (((0, 0.5), [[0.1], [2]]), ((0.5, 0), right), ((0, 1), [[0.1]]), ((0, 1), empty)):
        assert_raises("pass shares that rise", MixerPanel, ("a", "b"), shares, sure, ["a text"] * len(sure[0]))

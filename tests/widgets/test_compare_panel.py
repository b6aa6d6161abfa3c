"""The compare panel without a browser: what it sends, a pair at a margin, a comparison in a thread, Stop and Start."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lora_lab import ComparePanel
from lora_lab.errors import BadValue, Failed
from lora_lab.experiments import compare as module
from lora_lab.experiments.margins import MARGINS, scores_in
from lora_lab.experiments.statistics import LEVEL, verdict
from lora_lab.files import read_json
from lora_lab.methods import REGISTRY
from lora_lab.training.assets import shipped
from tests.comparisons import comparison
from tests.widgets.conftest import until

METHODS = ("probe", "prompt", "lora", "full")
STORED = shipped("data/results/compare")
WORDS = {"b": "better", "w": "worse", "e": "equivalent", "B": "better", "W": "worse", "u": "undecided"}


class Made:
    """What `compare` returns, of made-up results."""

    def __init__(self, methods: Sequence[str], seeds: int) -> None:
        self.methods, self.seeds = methods, seeds

    def to_json(self) -> dict[str, Any]:
        return comparison(*self.methods, seeds=self.seeds)


class Compare:
    """In the place of `compare`: each new method takes as long as `gate` is closed, what was there takes no time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.terms: dict[str, Any] = {}
        self.trained: list[str] = []
        self.gate, self.error = threading.Event(), ""
        self.gate.set()

    def __call__(
        self, model: str, task: str, methods: Sequence[str], store: Any, *, say: Callable[[str], None],
        stop: threading.Event, note: Callable[[Made], None], **terms: Any,
    ) -> Made:  # fmt: skip
        self.calls.append(tuple(methods))
        self.terms = {"model": model, "task": task, "store": store, **terms}
        for n, method in enumerate(methods, 1):
            if method not in self.trained:
                self._train(method, say, stop)
            if stop.is_set():
                break
            note(Made(methods[:n], terms["seeds"]))
        return Made(methods, terms["seeds"])

    def _train(self, method: str, say: Callable[[str], None], stop: threading.Event) -> None:
        say(f"{method}: tuning")
        while not self.gate.wait(0.01) and not stop.is_set():
            pass
        if self.error:
            raise Failed(self.error)
        if not stop.is_set():
            self.trained.append(method)


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Compare:
    made = Compare()
    monkeypatch.setattr(module, "compare", made)
    return made


def said(panel: ComparePanel, does: str, **content: Any) -> None:
    """A button of the browser."""
    panel._handle_custom_msg({"do": does, **content}, [])


# ---- what is stored


def test_the_outcome_at_each_margin_is_the_verdict_on_the_answers():
    panel = ComparePanel()
    scores = scores_in(read_json(STORED / "minilm_rt_all_linear.json"))
    for rival in ("full", "probe"):
        for method in scores.keys() - {rival}:
            entry = panel.stored["against"][rival][method]
            for margin in MARGINS[4::15]:
                letter = entry["outcomes"][panel.stored["margins"].index(margin)]
                found = verdict(scores[method], scores[rival], margin)
                assert found.outcome == ("equivalent" if letter.isupper() else WORDS[letter])
                assert letter.isupper() == (found.outcome == "equivalent" and found.p_difference < LEVEL)


def test_what_ships_is_shown_where_nothing_else_is_asked_for():
    panel = ComparePanel()
    assert panel.pair == ("LoRA r8 q,v", "full")
    assert panel.margin == 0.015
    words = panel.describe()
    assert "LoRA r8 q,v is worse than full" in words
    assert "full fine-tuning 82.3%" in words
    panel.margin = 0.03
    assert "worse than, but within the margin of, full" in panel.describe()
    panel.method = "LoRA r8 all-linear"
    panel.rival = "LoRA r8 q,v"
    assert "At a margin of 3 points, LoRA r8 all-linear is equivalent to LoRA r8 q,v" in panel.describe()
    assert len(json.dumps(panel.state())) < 60_000
    other = ComparePanel(task="kjv")
    assert (other.stored, other.pair) == ({}, ("", ""))
    assert "Nothing is compared yet" in other.describe()


def test_of_a_comparison_without_answers_other_margins_are_not_told():
    panel = ComparePanel(reference=read_json(STORED / "minilm_rt.json"))
    assert "LoRA r8 q,v is worse than full" in panel.describe()
    panel.margin = 0.03
    assert "not tested against full" in panel.describe()
    with pytest.raises(BadValue, match="not kept"):
        panel.resample()


def test_a_label_that_is_not_there_is_another_pair():
    panel = ComparePanel(reference=comparison("lora", "full"))
    panel.method, panel.rival = "full fine-tuning", "who?"
    assert panel.pair == ("LoRA r8 q,v", "full fine-tuning")
    panel.rival = "LoRA r8 q,v"
    assert panel.pair == ("full fine-tuning", "LoRA r8 q,v")
    assert ComparePanel(reference=comparison("lora")).pair == ("", "LoRA r8 q,v")


def test_studies_are_drawn_of_the_pair_and_others_each_time():
    panel = ComparePanel()
    said(panel, "dance", rows=100, traits={"method": "LoRA r8 all-linear", "rival": "full"})
    first = panel.dance
    assert (first["method"], first["rival"], first["rows"]) == ("LoRA r8 all-linear", "full", 100)
    assert len(first["studies"]) == len(first["outcomes"]) == 100
    assert first["truth"] == pytest.approx(panel.stored["against"]["full"]["LoRA r8 all-linear"]["difference"])
    panel.resample(100)
    assert panel.dance["studies"] != first["studies"]
    assert ComparePanel().dance == {}


# ---- at work


def test_the_headless_cell_compares_and_says_what_came_of_it(compare: Compare):
    panel = ComparePanel(methods=METHODS, store="somewhere", max_length=64).show()
    assert compare.trained == list(METHODS)
    assert compare.terms == {
        "model": "minilm", "task": "rt", "store": "somewhere", "seeds": 2, "rates": 4, "steps": 200, "batch": 8,
        "max_length": 64,
    }  # fmt: skip
    assert panel.live["state"] == "done"
    assert (panel.live["done"], panel.live["of"], panel.view) == (4, 4, "mine")
    assert "LoRA r8 q,v is better than, but within the margin of, full fine-tuning" in panel.describe()
    assert [row["method"] for row in panel.result().to_json()["methods"]] == list(METHODS)
    assert panel.stored["methods"] != panel.mine["methods"]


def test_every_method_that_can_be_trained_is_offered():
    panel = ComparePanel(methods=("lora", "lora:rank=1"))
    assert {one.split(":")[0] for one in panel.choices} == set(REGISTRY)
    assert "lora:rank=1" in panel.choices
    assert panel.methods == ["lora", "lora:rank=1"]


@pytest.mark.parametrize(
    ("given", "words"), [("lorra", "lorra"), ("lora,lora", "named twice"), ("lora:rnk=2", "rnk"), ("", "at least one")]
)
def test_what_cannot_be_is_one_sentence(given: str, words: str, tmp_path: Path):
    panel = ComparePanel(methods=[one for one in given.split(",") if one], store=tmp_path / "own")
    with pytest.raises(BadValue, match=words):
        panel.show()
    assert words in panel.live["error"]
    said(panel, "run")
    assert words in panel.live["error"]
    assert not (tmp_path / "own").exists()


def test_start_returns_at_once_stop_keeps_and_start_goes_on(compare: Compare, watched: None):
    panel = ComparePanel(methods=METHODS)
    with pytest.raises(BadValue, match="press Start"):
        panel.result()
    first, compare.gate = compare.gate, threading.Event()
    compare.trained = ["probe", "prompt"]  # the store has them
    said(panel, "run", traits={"seeds": 3, "steps": 50})
    until(lambda: panel.live.get("words") == "lora: tuning" and len(panel.mine["methods"]) == 2)
    assert panel.live["busy"]
    assert (panel.live["done"], panel.live["of"]) == (2, 4)
    assert (compare.terms["seeds"], compare.terms["steps"]) == (3, 50)
    said(panel, "run")  # a second Start while one is going on does nothing
    said(panel, "stop")
    until(lambda: panel.live["state"] == "stopped" and not panel.live["busy"])
    assert len(compare.calls) == 1
    assert len(panel.mine["methods"]) == 2
    with pytest.raises(BadValue, match="no finished comparison"):
        panel.result()
    compare.gate = first
    said(panel, "run")
    until(lambda: panel.live["state"] == "done" and not panel.live["busy"])
    assert compare.trained == ["probe", "prompt", "lora", "full"]
    assert [len(one["each"]) for one in panel.mine["methods"]] == [3] * 4
    assert panel.result()


def test_a_failure_is_shown_in_words_and_what_was_found_stays(compare: Compare, watched: None):
    panel = ComparePanel(methods=METHODS)
    compare.trained, compare.error = ["probe", "prompt", "lora"], "no room"
    panel.run()
    until(lambda: panel.live.get("error") == "no room" and not panel.live["busy"])
    assert len(panel.mine["methods"]) == 3
    with pytest.raises(BadValue, match="no room"):
        panel.result()


def test_what_has_not_changed_is_not_sent_again(compare: Compare):
    panel = ComparePanel(methods=METHODS).show()
    before = panel.mine
    panel._paint(panel.work)
    assert panel.mine is before


def test_nothing_is_written_before_start(compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    ComparePanel(methods=METHODS)
    assert not compare.calls
    assert not list(tmp_path.iterdir())

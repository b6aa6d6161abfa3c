"""The compare panel without a browser: what is ticked, a comparison in a thread, Stop and Start, what it says."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from lora_lab.errors import BadValue, Failed
from lora_lab.methods import REGISTRY
from lora_lab.widgets import live_compare
from lora_lab.widgets.compare_panel import PICTURES, ComparePanel
from lora_lab.widgets.compare_words import table
from lora_lab.widgets.panel import plain
from tests.comparisons import comparison
from tests.widgets.conftest import until

METHODS = ("probe", "prompt", "lora", "full")


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


@pytest.fixture(autouse=True)
def compare(monkeypatch: pytest.MonkeyPatch) -> Compare:
    made = Compare()
    monkeypatch.setattr(live_compare, "compare", made)
    return made


def test_the_headless_cell_compares_and_says_what_came_of_it(compare: Compare):
    panel = ComparePanel(methods=METHODS, store="somewhere", max_length=64).show()
    assert compare.trained == list(METHODS)
    assert compare.terms == {
        "model": "minilm", "task": "rt", "store": "somewhere", "seeds": 2, "rates": 4, "steps": 200, "batch": 8,
        "max_length": 64,
    }  # fmt: skip
    words = plain(panel.words.value)
    assert words.startswith(
        "done : 4 of 4 methods. LoRA r8 q,v is equivalent to full fine-tuning within 1.5 points at 0.33 %"
    )
    assert [row["method"] for row in panel.result().to_json()["methods"]] == list(METHODS)


def test_every_method_that_can_be_trained_has_a_box():
    panel = ComparePanel(methods=("lora", "lora:rank=1"))
    assert sorted(box.description for box in panel.boxes) == sorted(REGISTRY)
    assert panel.boxes[0].description == "lora"  # first what was asked for
    assert panel.more.value == "lora:rank=1"
    assert panel.methods() == ["lora", "lora:rank=1"]


@pytest.mark.parametrize(("typed", "words"), [("lorra", "lorra"), ("lora", "named twice"), ("lora:rnk=2", "rnk")])
def test_what_cannot_be_is_one_sentence_and_not_started(compare: Compare, typed: str, words: str):
    panel = ComparePanel(methods=("lora",))
    panel.more.value = typed
    assert "cannot do that" in panel.words.value
    assert words in plain(panel.words.value)
    panel.start()
    assert panel.start_button.disabled
    assert not compare.calls
    with pytest.raises(BadValue, match=words):
        panel.show()
    panel.more.value = ""
    assert not panel.start_button.disabled
    assert "ready" in panel.words.value


def test_no_method_at_all_is_said():
    panel = ComparePanel(methods=("lora",))
    for box in panel.boxes:
        box.value = False
    assert "at least one method" in plain(panel.words.value)


def test_start_returns_at_once_stop_keeps_and_start_goes_on(compare: Compare, watched: None):
    panel = ComparePanel(methods=METHODS)
    with pytest.raises(BadValue, match="press Start"):
        panel.result()
    first, compare.gate = compare.gate, threading.Event()
    compare.trained = ["probe", "prompt"]  # the store has them
    panel.start_button.click()
    until(lambda: "lora: tuning" in panel.words.value)
    assert "2 of 4 methods" in plain(panel.words.value)
    assert panel.boxes[0].disabled
    panel.start()  # a second Start while one is going on does nothing
    panel.stop_button.click()
    until(lambda: "stopped" in panel.words.value and not panel.start_button.disabled)
    assert "stopped : 2 of 4 methods. Start goes on" in plain(panel.words.value)
    assert table(comparison("probe", "prompt", seeds=2)) in panel.table.value
    with pytest.raises(BadValue, match="no finished comparison"):
        panel.result()
    compare.gate = first
    panel.start_button.click()
    until(lambda: "done" in panel.words.value and not panel.start_button.disabled)
    assert compare.trained == ["probe", "prompt", "lora", "full"]
    assert panel.result()


def test_a_change_that_comes_while_it_compares_is_put_back(compare: Compare, watched: None):
    panel = ComparePanel(methods=METHODS)
    first, compare.gate = compare.gate, threading.Event()
    panel.start()
    live = panel.live
    panel.seeds.value = 7  # was on its way when Start was pressed
    panel.boxes[0].value = False
    assert panel.live is live
    assert (panel.seeds.value, panel.boxes[0].value) == (2, True)
    panel.stop()  # still ends it
    until(lambda: "stopped" in panel.words.value and not panel.start_button.disabled)
    compare.gate = first
    panel.seeds.value = 3
    assert panel.live is not live


def test_a_failure_is_shown_in_words_and_what_was_found_stays(compare: Compare, watched: None):
    panel = ComparePanel(methods=METHODS)
    compare.trained, compare.error = ["probe", "prompt", "lora"], "<b>no room</b>"
    panel.start()
    until(lambda: "no room" in panel.words.value and not panel.start_button.disabled)
    assert "<b>no room" not in panel.words.value
    assert "3 of 4 methods" in plain(panel.words.value)
    assert "LoRA" in panel.table.value


def test_the_table_has_every_seed_verdict_and_cost_best_first():
    found = comparison(kind="undecided")
    words = plain(table(found))
    rows = words.split("tokens added")[1]
    assert rows.index("LoRA r8 q,v") < rows.index("head")
    for value in next(row for row in found["methods"] if row["method"] == "bitfit")["accuracy"]["each"]:
        assert f"{100 * value:.1f}" in rows
    assert "0.05 (edge)" in rows
    assert "l2 10" in rows  # the probe has no rate
    for part in ("undecided", "equivalent", "better", "74,498", "482 MiB", "1.11 GiB", "14.8"):
        assert part in rows
    assert "each rate chosen on validation from at most 4 tried" in words


def test_a_method_that_failed_has_its_reason_in_the_table():
    found = comparison("lora", "full")
    found["methods"][0] |= {"error": "prefix does not fit <it>", "accuracy": None, "against": {}, "seconds": None}
    assert "none: prefix does not fit &lt;it&gt;" in table(found)


def test_a_saved_notebook_shows_a_picture_and_the_words():
    panel = ComparePanel(methods=METHODS, reference=comparison()).show()
    data, _ = panel._repr_mimebundle_()
    assert "LoRA r8 q,v is equivalent" in data["text/plain"]
    seen = set()
    for view in PICTURES:
        panel.view.value = view
        pixels = imread(io.BytesIO(panel.picture.value))
        assert pixels[:, :, :3].std() > 0.05
        assert pixels.shape[2] == 3 or pixels[:, :, 3].min() == 1  # opaque: it reads on a dark theme too
        seen.add(panel.picture.alt)
    assert len(seen) == len(PICTURES)


def test_of_what_nothing_is_known_no_other_picture_is_shown():
    panel = ComparePanel(methods=METHODS).show()
    for row in panel.live.found["methods"]:
        row["seconds"] = None
    assert panel.picture.value
    panel.view.value = "time of a run"
    assert (panel.picture.value, panel.picture.alt) == (b"", "")


def test_a_tick_without_news_paints_nothing():
    panel = ComparePanel(methods=METHODS).show()
    before = panel.picture.value
    panel._paint()
    assert panel.picture.value is before


def test_other_settings_are_another_comparison():
    panel = ComparePanel(methods=METHODS).show()
    panel.seeds.value = 3
    assert "ready" in panel.words.value
    assert not panel.table.value
    panel.start()
    assert len(panel.live.found["methods"][0]["accuracy"]["each"]) == 3


def test_nothing_is_written_before_start(compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    ComparePanel(methods=METHODS)
    assert not compare.calls
    assert not list(tmp_path.iterdir())

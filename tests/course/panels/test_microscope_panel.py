"""The microscope's panel without a browser: what is seen is looked up, what is not yet is said, and Stop stops."""

from __future__ import annotations

import time

import numpy as np
import pytest

from lora_course.experiments.microscope import Microscope, Seen, Sentences, Views
from lora_course.panels.microscope_panel import MicroscopePanel
from lora_lab.errors import BadValue
from lora_lab.widgets.panel import plain
from tests.widgets.conftest import until


@pytest.fixture
def views() -> Views:
    """Five sentences, two updates: full of rank 32, lora of rank 2."""
    asked = Sentences(("a <b>good</b> film", "bad", "fine", "dull", "odd"), np.array([1, 0, 1, 0, 1]), ("no", "yes"))
    answers = {0: [0, 0, 0, 0, 0], 2: [1, 0, 1, 1, 0], 32: [1, 0, 1, 0, 0]}
    seen = {
        "full": {r: Seen(r, energy, np.array(answers[r])) for r, energy in ((0, 0.0), (2, 0.25), (32, 1.0))},
        "lora": {r: Seen(r, energy, np.array(answers[o])) for r, energy, o in ((0, 0.0, 0), (2, 1.0, 32))},
    }
    return Views(asked, {"full": (0, 2, 32), "lora": (0, 2)}, seen)


def test_the_slider_looks_up_and_says_it_all(views: Views):
    panel = MicroscopePanel(views, rank=2).show()
    assert panel.live.state == "done"
    said = plain(panel.words.value)
    assert "full cut to rank 2 : 60.0%" in said
    assert "nothing cut: 80.0%" in said
    assert "25.0% of the energy" in said
    assert "1 flipped, 1 of these now wrong" in said
    assert "dull" in panel.table.value
    before = bytes(panel.picture.value)
    panel.rank.value = 0
    assert "the base with the trained head" in panel.words.value
    assert "a &lt;b&gt;good&lt;/b&gt; film" in panel.table.value
    assert bytes(panel.picture.value) != before
    panel.which.value = "lora"
    panel.rank.value = 32
    assert "it has only rank 2, so nothing is cut" in panel.words.value
    assert "100.0%" in panel.words.value
    assert panel.table.value == ""
    assert panel.result() is views


def test_what_is_not_seen_yet_is_said(views: Views):
    del views.seen["full"][2]
    panel = MicroscopePanel(views, rank=2)
    assert "not looked at yet" in panel.words.value
    with pytest.raises(BadValue, match="1 looks are still to come"):
        panel.result()


def test_a_rank_off_the_slider_is_refused(views: Views):
    with pytest.raises(BadValue, match="no rank 3"):
        MicroscopePanel(views, rank=3)


class Slow(Microscope):
    """A microscope whose looks come from a table, each after a moment."""

    def __init__(self, views: Views) -> None:
        self.all_seen, self.views = views.seen, Views(views.sentences, views.ranks)
        self.order: list[tuple[str, int]] = []

    def all(self):
        for name, ranks in self.views.ranks.items():
            for rank in ranks:
                yield self.look(name, rank)

    def look(self, name, rank):
        if found := self.views.at(name, rank):
            return found
        time.sleep(0.05)
        self.order.append((name, rank))
        return self.views.seen.setdefault(name, {}).setdefault(rank, self.all_seen[name][rank])


def test_looks_are_taken_in_the_background_those_asked_for_first_and_stop_stops(views: Views, watched: None):
    scope = Slow(views)
    panel = MicroscopePanel(scope, rank=0)
    panel.which.value = "lora"
    panel.rank.value = 2
    panel.show()
    until(lambda: len(scope.order) >= 2)
    assert scope.order[1] == ("lora", 2)
    panel.stop_button.click()
    until(lambda: panel.live.state == "stopped" and not panel.live.alive)
    assert scope.views.left > 0
    panel.show()
    until(lambda: panel.live.state == "done" and panel.stop_button.disabled)
    assert panel.result().left == 0


def test_with_nobody_watching_all_is_seen_when_it_returns(views: Views):
    panel = MicroscopePanel(Slow(views), rank=2).show()
    assert panel.result().left == 0
    assert "80.0%" in panel.words.value
    assert bytes(panel.picture.value).startswith(b"\x89PNG")

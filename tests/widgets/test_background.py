"""Work in a thread: what Stop ends, and what it does not."""

from __future__ import annotations

import threading
import time

import pytest

from lora_lab.widgets import background
from lora_lab.widgets.background import Background, start_painted
from lora_lab.widgets.panel import Panel, plain


class Counting(Background):
    """Counts to twenty in a fifth of a second, or until it is stopped."""

    def _work(self) -> None:
        self.state = "counting"
        for _ in range(20):
            if self._stop.is_set():
                self.state = "stopped"
                return
            time.sleep(0.01)
        self.state = "done"


def test_a_stop_after_the_end_does_not_break_the_next_run():
    live = Counting()
    live.start()
    live.wait(10)
    live.stop()  # a moment too late
    live.start()
    live.wait(10)
    assert live.state == "done"


def test_a_stop_right_after_a_start_ends_it_and_the_next_run_is_whole():
    live = Counting()
    live.start()
    live.stop()
    live.wait(10)
    assert live.state == "stopped"
    live.start()
    live.wait(10)
    assert live.state == "done"


def painted(paint) -> tuple[Counting, Panel]:
    """The work to its end and a panel that `paint(panel, number)` paints, at the first point as number 1."""
    live, panel, numbers = Counting(), Panel("Count"), iter(range(1, 1000))

    def point() -> None:
        panel.words.value = f"<b>{live.state}</b>"
        paint(next(numbers))

    start_painted(live, point, panel.tell)
    for thread in [one for one in threading.enumerate() if one.name == "lora-lab-paint"]:
        thread.join(20)
    return live, panel


def test_a_point_that_cannot_be_painted_is_told_and_the_next_ones_are_painted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "PAINTS_PER_SECOND", 100)
    done = []

    def paint(number: int) -> None:
        if number == 2:
            raise ValueError("no <room>")
        done.append(number)

    live, panel = painted(paint)
    assert live.state == "done"
    assert done[:2] == [1, 3]
    assert len(done) > 3
    assert plain(panel.words.value).startswith("done")
    assert plain(panel.words.value).count("ValueError: no <room>") == 1


def test_what_can_never_be_painted_says_why_and_the_work_goes_on_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "PAINTS_PER_SECOND", 100)

    def paint(number: int) -> None:
        raise ValueError(f"point {number}")

    live, panel = painted(paint)
    assert live.state == "done"
    assert panel.words.value.count("painting failed") == 1
    assert "point 1" in panel.words.value
    assert "goes on" not in panel.words.value  # it has ended
